use std::path::Path;

use http::HeaderValue;

use super::*;

/// A route with these limits, and the admission that knows it.
fn limited(limits: &str) -> (Arc<Route>, Admission) {
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\nlimits = {{ {limits} }}\n\
         [[route]]\npath = \"/other\"\nupstream = \"u\"\nlimits = {{ {limits} }}\n\
         [upstream.u]\nurl = \"builtin:echo\"\n"
    );
    let model = crate::config::parse(&text, Path::new("proxy.toml")).unwrap();
    (Arc::clone(&model.routes.all()[0]), Admission::new(&model))
}

fn client(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn a_route_without_limits_has_no_gate() {
    let text =
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n";
    let model = crate::config::parse(text, Path::new("proxy.toml")).unwrap();
    let admission = Admission::new(&model);
    assert!(admission.is_unlimited());
    assert!(admission.admit(&model.routes.all()[0], client("192.0.2.1"), None).unwrap().is_none());
}

#[test]
fn the_live_of_one_client_network_are_counted_together() {
    let (route, admission) = limited("websockets_per_client = 2");
    let admit = |text| admission.admit(&route, client(text), None);
    let first = admit("2001:db8::1").unwrap();
    let _second = admit("2001:db8::2").unwrap();
    assert_eq!(admit("2001:db8::3").unwrap_err(), Refusal::ClientFull);
    let _next_network = admit("2001:db8:0:1::1").unwrap();
    let _ipv4 = admit("192.0.2.1").unwrap();
    let _mapped = admit("::ffff:192.0.2.1").unwrap();
    assert_eq!(admit("192.0.2.1").unwrap_err(), Refusal::ClientFull);
    drop(first);
    let _third = admit("2001:db8::3").unwrap();
    assert_eq!(admit("2001:db8::1").unwrap_err(), Refusal::ClientFull);
    // Over a Unix socket there is no network to count by.
    let _local: Vec<_> = (0..5).map(|_| admission.admit(&route, None, None).unwrap()).collect();
}

#[test]
fn an_origin_is_one_however_it_is_spelt_and_none_is_one_too() {
    let (route, admission) = limited("websockets_per_origin = 1");
    let admit = |origin: Option<&'static str>| {
        let origin = origin.map(HeaderValue::from_static);
        admission.admit(&route, client("192.0.2.1"), origin.as_ref())
    };
    let _held = admit(Some("https://a.example")).unwrap();
    for same in ["https://a.example", "HTTPS://A.example", "https://a.example:443"] {
        assert_eq!(admit(Some(same)).unwrap_err(), Refusal::OriginFull, "{same}");
    }
    let _others = ["https://b.example", "null", "no origin at all"].map(|other| admit(Some(other)).unwrap());
    assert_eq!(admit(Some("null")).unwrap_err(), Refusal::OriginFull);
    let _absent = admit(None).unwrap();
    assert_eq!(admit(None).unwrap_err(), Refusal::OriginFull);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_takes_no_place_and_uses_up_no_turn() {
    let limits = "websockets = 4, websockets_per_client = 3, websockets_per_origin = 2, handshakes_per_second = 1, \
                  handshakes_burst = 4";
    let (route, admission) = limited(limits);
    let admit = |address, origin: &'static str| {
        admission.admit(&route, client(address), Some(&HeaderValue::from_static(origin)))
    };
    let mut held =
        vec![admit("192.0.2.1", "https://a.example").unwrap(), admit("192.0.2.1", "https://a.example").unwrap()];
    for _ in 0..100 {
        assert_eq!(admit("192.0.2.2", "https://a.example").unwrap_err(), Refusal::OriginFull);
    }
    held.push(admit("192.0.2.1", "https://b.example").unwrap());
    for _ in 0..100 {
        assert_eq!(admit("192.0.2.1", "https://c.example").unwrap_err(), Refusal::ClientFull);
    }
    held.push(admit("192.0.2.2", "https://c.example").unwrap());
    assert_eq!(admit("192.0.2.3", "https://d.example").unwrap_err(), Refusal::RouteFull);
    held.clear();
    assert_eq!(admit("192.0.2.3", "https://d.example").unwrap_err(), Refusal::RouteRate);
    let [gate, _] = &*admission.gates else { panic!("two routes have limits") };
    let place = |gate: &Gate| gate.places.as_ref().unwrap().available_permits();
    assert_eq!(place(gate), 4, "the rate is asked last, and its refusal gives everything back");
}

#[test]
fn routes_are_counted_apart() {
    let (route, admission) = limited("websockets = 1");
    let _held = admission.admit(&route, client("192.0.2.1"), None).unwrap();
    let other = admission.gates.iter().map(|gate| &gate.route).find(|other| !Arc::ptr_eq(other, &route)).unwrap();
    assert!(admission.admit(other, client("192.0.2.1"), None).is_ok());
    assert_eq!(admission.admit(&route, client("192.0.2.1"), None).unwrap_err(), Refusal::RouteFull);
}

#[tokio::test(start_paused = true)]
async fn a_client_beyond_its_rate_takes_nobody_elses_turn() {
    let (route, admission) = limited("handshakes_per_second = 10, handshakes_per_second_per_client = 1");
    let admit = |address: &str| admission.admit(&route, client(address), None).err();
    assert_eq!(admit("192.0.2.1"), None);
    for _ in 0..1000 {
        assert_eq!(admit("192.0.2.1"), Some(Refusal::ClientRate { wait: Duration::from_secs(1) }));
    }
    let others: Vec<_> = (2..12).map(|last| admit(&format!("192.0.2.{last}"))).collect();
    assert_eq!(others[..9], [None; 9]);
    assert_eq!(others[9], Some(Refusal::RouteRate));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(admit("192.0.2.1"), None);
}
