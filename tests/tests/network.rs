//! What `cargo xtask soak network` does, with less of everything.

use tests::network::{SHORT, TRANSPORTS, connections, services, two_machines};
use tests::process::binary;

#[test]
fn connections_go_both_ways_and_leave_nothing() {
    connections(&binary(), &SHORT, |text| println!("{text}")).expect("they do");
}

#[test]
fn services_answer_and_programs_run() {
    services(&binary(), 2, |text| println!("{text}")).expect("they do");
}

#[test]
fn two_machines_send_each_other_all_they_have() {
    for transport in TRANSPORTS {
        two_machines(&binary(), transport, SHORT.mebibytes).expect(transport);
    }
}
