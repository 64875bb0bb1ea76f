"""Loads a page in WebKitGTK and prints what the page leaves in `window.result`, as one line of JSON.

Arguments: URL, time limit in seconds. Needs an X server, such as that of xvfb-run, and Debian's Python, which has the
bindings. Certificates are accepted as they are: the CA of a test is in no store.
"""
import sys

import gi

gi.require_version("Gtk", "3.0")
gi.require_version("WebKit2", "4.1")
from gi.repository import GLib, Gtk, WebKit2  # noqa: E402

url, seconds = sys.argv[1], int(sys.argv[2])
status = 1

context = WebKit2.WebContext.new_ephemeral()
context.get_website_data_manager().set_tls_errors_policy(WebKit2.TLSErrorsPolicy.IGNORE)
view = WebKit2.WebView.new_with_context(context)


def stop(text, code):
    global status
    status = code
    print(text, file=sys.stderr if code else sys.stdout, flush=True)
    Gtk.main_quit()
    return GLib.SOURCE_REMOVE


def evaluated(view, result):
    try:
        text = view.evaluate_javascript_finish(result).to_string()
    except GLib.Error:
        text = ""  # The page is still being loaded.
    if text.startswith("{"):
        stop(text, 0)
    else:
        GLib.timeout_add(50, look)


def look():
    view.evaluate_javascript("JSON.stringify(window.result)", -1, None, None, None, evaluated)
    return GLib.SOURCE_REMOVE


view.connect("load-failed", lambda _view, _event, failed, error: stop(f"{failed}: {error.message}", 1))
window = Gtk.Window()
window.add(view)
window.show_all()
view.load_uri(url)
GLib.timeout_add(50, look)
GLib.timeout_add_seconds(seconds, stop, f"no result within {seconds} s", 1)
Gtk.main()
sys.exit(status)
