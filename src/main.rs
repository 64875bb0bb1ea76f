//! The process edge: arguments, config, telemetry, signals, exit code.
#![allow(clippy::print_stderr, reason = "the process edge speaks to a terminal")]

use std::{io::Write, path::Path, process::ExitCode};

use switchgate::{
    cli::{self, Command},
    config,
    config::model::Model,
    probe::{self, ProbeOptions},
    server::{self, Order, ServerError},
    telemetry::{self, LogFormat},
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// See docs/adr/0002-allocator.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => {
            // Help and version come this way too, on standard output and with exit code 0.
            let code = u8::try_from(error.exit_code()).unwrap_or(USAGE);
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::from(FAILED) };
        }
    };
    let format = match invocation.log_format {
        cli::LogFormat::Pretty => LogFormat::Pretty,
        cli::LogFormat::Json => LogFormat::Json,
    };
    match invocation.command {
        Command::Run { config, tls_key_log } => run(&config, tls_key_log.as_deref(), format),
        Command::Check { config } => match load(&config) {
            Ok(model) => match server::check(&model) {
                Ok(()) => {
                    for warning in server::warnings(&model) {
                        eprintln!("warning: {warning}");
                    }
                    print(format!("{}: no problems\n", config.display()).as_bytes())
                }
                Err(error) => fail(USAGE, &error.to_string()),
            },
            Err(code) => code,
        },
        Command::Probe(options) => probe(&options),
        Command::Schema => print(config::schema().as_bytes()),
        Command::Completions(shell) => print(&cli::completions(shell)),
    }
}

fn print(text: &[u8]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &format!("cannot write to standard output: {error}")),
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::from(code)
}

fn load(path: &Path) -> Result<Model, ExitCode> {
    config::load(path).map_err(|errors| {
        for line in errors.to_string().lines() {
            eprintln!("error: {line}");
        }
        ExitCode::from(USAGE)
    })
}

/// Signals, the drain and the probe need no more than this one; traffic has threads of its own.
fn runtime() -> Result<Runtime, ExitCode> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| fail(FAILED, &format!("cannot start the runtime: {error}")))
}

fn probe(options: &ProbeOptions) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(probe::run(options, &mut std::io::stdout())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => fail(FAILED, &format!("cannot write to standard output: {error}")),
    }
}

fn run(path: &Path, tls_key_log: Option<&Path>, format: LogFormat) -> ExitCode {
    let model = match load(path) {
        Ok(model) => model,
        Err(code) => return code,
    };
    if let Err(text) = telemetry::install(format) {
        return fail(USAGE, &text);
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(serve(model, tls_key_log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error),
    }
}

async fn serve(model: Model, tls_key_log: Option<&Path>) -> Result<(), String> {
    let no_signals = |error| format!("cannot listen for signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
    let text = |error: ServerError| error.to_string();
    let bound = match tls_key_log {
        None => server::bind(&model),
        Some(file) => server::bind_with_key_log(&model, file),
    };
    let bound = bound.map_err(text)?;
    // Room for the second stop beside a few reloads; more of either say nothing new.
    let (give, orders) = mpsc::channel(8);
    let tell = |order| {
        let _full_of_the_same = give.try_send(order);
    };
    let signals = async {
        loop {
            tokio::select! {
                Some(()) = terminate.recv() => tell(Order::Stop),
                Some(()) = interrupt.recv() => tell(Order::Stop),
                // Unhandled it would end the process and every WebSocket with it.
                Some(()) = hangup.recv() => {
                    tracing::info!("SIGHUP: reading the certificates again; the config is read at start only");
                    tell(Order::Reload);
                }
                else => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        ended = server::run(model, bound, orders) => ended.map(|_| ()).map_err(text),
        () = signals => Ok(()),
    }
}
