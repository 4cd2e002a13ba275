//! `null-co`: a device of a given size that keeps nothing.

use crate::driver::{Driver, DriverDef};
use crate::node::Perm;
use hw_core::memory::RamRanges;
use qom::Result;
use std::io;
use std::time::Duration;

inventory::submit! {
    DriverDef { name: "null-co", protocol: true, open: |_, _, opts| {
        let size = opts.take_size("size")?.unwrap_or(1 << 30);
        let latency = Duration::from_nanos(opts.take_size("latency-ns")?.unwrap_or(0));
        // Reads give zeros anyway: whatever is in the buffer otherwise would be no better.
        opts.take_bool("read-zeroes")?;
        Ok(Box::new(Null { size, latency }))
    } }
}

struct Null {
    size: u64,
    latency: Duration,
}

impl Null {
    fn wait(&self) {
        if !self.latency.is_zero() {
            std::thread::sleep(self.latency);
        }
    }
}

impl Driver for Null {
    fn len(&self) -> io::Result<u64> {
        Ok(self.size)
    }
    fn read(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        self.wait();
        buf.fill(0);
        Ok(())
    }
    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        self.wait();
        Ok(())
    }
    fn read_into(&self, _: u64, to: &RamRanges) -> io::Result<()> {
        self.wait();
        to.clear();
        Ok(())
    }
    fn write_from(&self, _: u64, _: &RamRanges) -> io::Result<()> {
        self.wait();
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        self.wait();
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.wait();
        Ok(())
    }
    fn is_instant(&self) -> bool {
        self.latency.is_zero()
    }
    fn set_perms(&self, _: Perm, _: Perm) -> Result<()> {
        Ok(())
    }
    fn filename(&self) -> String {
        "null-co://".into()
    }
}
