//! Drivers gone mad: queues of each virtio device, and its registers.

mod driver;

use crate::input::Input;
use crate::network::Wire;
use crate::p9;
use crate::rig::Rig;
use chardev::config::Backend;
use chardev::{Config, Host, Hub};
use driver::Driver;
use hw::fsdev::FsDevs;

/// Longest input.
const MOST: usize = 8 << 10;
/// Most steps of an input.
const STEPS: usize = 200;

/// Begins with how the driver sets the device up, goes on with steps. `outside`: what the world does meanwhile, with a byte to choose by.
fn run(rig: &mut Rig, name: &str, props: &[(&str, &str)], data: &[u8], mut outside: impl FnMut(&Rig, &mut Input<'_>)) {
    let mut input = Input::new(data, MOST);
    let flags = input.byte();
    let packed = if flags & 1 != 0 { "on" } else { "off" };
    let pci = rig.function(name, &[props, &[("packed", packed)]].concat());
    let mut driver = Driver::new(rig, pci, flags, input.quad());
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.byte() {
            b @ 0xf0.. if b & 1 != 0 => outside(rig, &mut input),
            b => driver.step(rig, b, &mut input),
        }
        rig.turn();
    }
    rig.step(20_000_000);
    rig.turn();
}

/// `virtio-blk-pci` with a drive.
pub fn virtio_blk(data: &[u8]) {
    let rig = &mut Rig::new();
    let disk = rig.disk();
    run(rig, "virtio-blk-pci", &[("drive", &disk), ("num-queues", "2")], data, |_, _| ());
}

/// `virtio-scsi-pci` with a disk and a CD.
pub fn virtio_scsi(data: &[u8]) {
    let rig = &mut Rig::new();
    let (disk, cd) = (rig.disk(), rig.disk());
    let mut ready = false;
    // (Its units are made when it is there: by the first step from outside, else it has none.)
    run(rig, "virtio-scsi-pci", &[("num_queues", "1")], data, |rig, _| {
        if !std::mem::replace(&mut ready, true) {
            rig.device("scsi-hd", &[("drive", &disk), ("scsi-id", "0"), ("lun", "0")]);
            rig.device("scsi-cd", &[("drive", &cd), ("scsi-id", "0"), ("lun", "1")]);
        }
    });
}

/// `virtio-net-pci` joined to a socket that sends it frames.
pub fn virtio_net(data: &[u8]) {
    let rig = &mut Rig::new();
    let wire = Wire::new(&rig.nets(), "n");
    run(rig, "virtio-net-pci", &[("netdev", "n"), ("romfile", "")], data, |_, input| {
        let len = usize::from(input.byte());
        let repeat = 1 + input.below(64);
        let frame = input.take(len).repeat(repeat);
        wire.send(&frame);
        wire.take();
    });
}

/// `virtio-rng-pci`.
pub fn virtio_rng(data: &[u8]) {
    let rig = &mut Rig::new();
    run(rig, "virtio-rng-pci", &[("max-bytes", "100000"), ("period", "10")], data, |rig, _| rig.step(10_000_000));
}

/// `virtio-balloon-pci` with all it offers.
pub fn virtio_balloon(data: &[u8]) {
    let rig = &mut Rig::new();
    let props = [("deflate-on-oom", "on"), ("free-page-reporting", "on")];
    run(rig, "virtio-balloon-pci", &props, data, |rig, _| rig.step(1_000_000_000));
}

/// `virtio-serial-pci` with a console and a port.
pub fn virtio_serial(data: &[u8]) {
    let rig = &mut Rig::new();
    let host = Host {
        events: rig.events.clone(),
        quit: Box::new(|| ()),
        report: Box::new(|_| ()),
        interrupted: Box::new(|| false),
        escape: 1,
        daemonize: false,
    };
    let hub = Hub::new(host);
    let dir = tempfile::tempdir().expect("a folder");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::write(&from, vec![b'x'; 10_000]).expect("a file");
    let file = Backend::File { path: to, input: Some(from), append: false };
    for (id, backend) in [("a", file), ("b", Backend::Ringbuf { size: 4096 })] {
        let channel = hub.open(&Config::new(id, backend)).expect("a character device");
        chardev::publish(rig.vm().world().scope(), &channel).expect("a character device");
    }
    let mut ready = false;
    run(rig, "virtio-serial-pci", &[("max_ports", "4")], data, |rig, _| {
        if !std::mem::replace(&mut ready, true) {
            rig.device("virtconsole", &[("chardev", "a")]);
            rig.device("virtserialport", &[("chardev", "b"), ("name", "p")]);
        }
    });
    hub.close_all();
}

/// `virtio-9p-pci` with a folder.
pub fn virtio_9p(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder");
    {
        let rig = &mut Rig::new();
        let folders = rig.vm().core().service::<FsDevs>();
        folders.add("x", p9::folder(dir.path(), false)).expect("a folder");
        // (A thread serves it: it gets some time.)
        run(rig, "virtio-9p-pci", &[("fsdev", "x"), ("mount_tag", "t")], data, |_, _| {
            std::thread::sleep(std::time::Duration::from_micros(100));
        });
    }
    p9::confined(dir.path());
}
