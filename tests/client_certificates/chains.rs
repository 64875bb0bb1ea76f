//! Clients whose certificate has another between it and the root.

use super::*;

#[tokio::test]
async fn a_list_is_wanted_of_every_ca_in_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let (root, other) = (Authority::above("root"), Authority::new("other"));
    let middle = root.below("middle", 40);
    let (mut alice, alices_key) = issue(&middle, 1, |_| {}).pair();
    alice.push(middle.root());
    let bob = issue(&other, 1, |_| {});
    root.write(&folder.path().join("root.pem"));
    other.write(&folder.path().join("other.pem"));
    let pem = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    replace(&folder.path().join("clients.pem"), &[pem("root.pem"), pem("other.pem")].concat());
    replace(&folder.path().join("other.crl"), &other.crl(&[], 1, 2100));
    for (what, of_root, of_middle, expected) in [
        ("all good", Some(&[][..]), Some(&[][..]), true),
        ("the CA in the middle revoked", Some(&[40]), Some(&[]), false),
        ("no list of the root", None, Some(&[]), false),
        ("no list of the CA in the middle", Some(&[]), None, false),
        ("she revoked", Some(&[]), Some(&[1]), false),
    ] {
        let mut crls = vec!["other.crl"];
        for (ca, file, revoked) in [(&root, "root.crl", of_root), (&middle, "middle.crl", of_middle)] {
            if let Some(serials) = revoked {
                replace(&folder.path().join(file), &ca.crl(serials, 1, 2100));
                crls.push(file);
            }
        }
        let config = gate(&format!("ca = \"clients.pem\"\ncrl = {crls:?}"), "builtin:echo", "");
        let proxy = Proxy::start_in(&config, folder.path()).await;
        let address = proxy.addresses[0].to_string();
        for versions in [V12, V13] {
            let builder = trusting(&[development_root(folder.path())], versions);
            let shows = Arc::new(builder.with_client_auth_cert(alice.clone(), alices_key.clone_key()).unwrap());
            assert_eq!(is_let_in(&address, &shows).await, expected, "{what}, {versions:?}");
            let others = client(folder.path(), Some(&bob), versions);
            assert!(is_let_in(&address, &others).await, "{what}: somebody of another CA, {versions:?}");
        }
    }
}
