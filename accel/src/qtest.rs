//! Type `qtest-accel`: no guest code runs, the virtual clock stands still until a test moves it (see `vl`'s qtest server).

use hw_core::accel::{Accel, AccelClass};
use qom::Class;

/// Type `qtest-accel`.
#[derive(qom::Object)]
#[qom(name = "qtest-accel", parent = Accel, class_init = QtestAccel::class_init)]
pub struct QtestAccel {
    parent: Accel,
}

impl QtestAccel {
    /// vCPUs exist, but no thread is ever made for them: the default hooks.
    fn class_init(c: &mut Class) {
        c.edit::<AccelClass>().init_machine = |_, machine, _| {
            machine.core().clocks.set_stepped();
            Ok(())
        };
    }
}
