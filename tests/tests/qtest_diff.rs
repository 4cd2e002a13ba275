//! Every device script answers as on the peer.

#[test]
fn devices_answer_as_the_peer_does() {
    tests::qtest_diff::run(&[]).unwrap();
}
