//! VMware's port and mouse on an ISA bus, with a CPU that is nothing but registers.
#![expect(clippy::unwrap_used, reason = "tests")]

use hw::i386::vmport::cmd;
use hw_core::config::BoardConfig;
use hw_core::isa::{IsaBridge, isa_create_simple};
use hw_core::memory::Attrs;
use hw_core::{Bus, Core, Cpu, CpuClass, Device, IsaBus, Line, Machine, RunState, Vm};
use qom::Ref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use ui::input::{PointerEvent, send_pointer};

/// A CPU that is its registers.
#[derive(qom::Object)]
#[qom(name = "test-registers-cpu", parent = Cpu, class_init = RegistersCpu::class_init)]
struct RegistersCpu {
    parent: Cpu,
    regs: [AtomicU64; 16],
    #[property(default = true)]
    x2apic: qom::Prop<bool>,
}

impl RegistersCpu {
    fn class_init(c: &mut qom::Class) {
        let k = c.edit::<CpuClass>();
        k.read_reg = |c, n| Self::of(c).regs[n].load(Relaxed);
        k.write_reg = |c, n, v| Self::of(c).regs[n].store(v, Relaxed);
    }
    fn of(c: &Cpu) -> Ref<RegistersCpu> {
        Ref::new(c.object()).unwrap()
    }
}

const MAGIC: u32 = 0x564d_5868;
const PORT: u64 = 0x5658;

struct Board {
    vm: Vm,
    cpu: Ref<RegistersCpu>,
}

impl Board {
    fn new(port: &[(&str, &str)]) -> Board {
        let vm = Vm::new();
        let uuid = Some("00112233-4455-6677-8899-aabbccddeeff".to_owned());
        vm.configure(BoardConfig { uuid, ..BoardConfig::default() });
        vm.requests.set_state(RunState::Running);
        let scope = vm.world().scope().clone();
        let machine = Machine::create(vm.world(), "none-machine").unwrap();
        machine.set("memory", serde_json::json!({"size": 64 << 20})).unwrap();
        let cpu: Ref<RegistersCpu> = scope.object_new_as("test-registers-cpu").unwrap();
        {
            let mut m = vm.core().lock();
            cpu.qdev_realize(&mut m).unwrap();
            let bridge = scope.object_new_as::<IsaBridge>("isabus-bridge").unwrap();
            bridge.realize_sysbus(&mut m).unwrap();
            let isa = IsaBus::create(&bridge, &vm.system_memory(), &vm.system_io()).unwrap();
            isa.register_input_irqs((0..16).map(|_| Line::new(|_, _| ())).collect());
            let i8042 = isa_create_simple(&mut m, &isa, "i8042").unwrap();
            let bus: Ref<Bus> = Ref::new(Ref::object(&isa).clone()).unwrap();
            let mut plug = |name: &str, props: &[(&str, &str)]| {
                let d = scope.object_new_as::<Device>(name).unwrap();
                props.iter().for_each(|(k, v)| d.set_str(k, v).unwrap());
                d.realize_on(&mut m, &bus)
            };
            let path = i8042.path();
            let e = plug("vmmouse", &[("i8042", &path)]).unwrap_err();
            assert_eq!(e.to_string(), "vmmouse needs a machine with vmport");
            plug("vmport", port).unwrap();
            assert_eq!(plug("vmmouse", &[]).unwrap_err().to_string(), "'i8042' link is not set");
            plug("vmmouse", &[("i8042", &path)]).unwrap();
        }
        Board { vm, cpu }
    }

    fn core(&self) -> &Core {
        self.vm.core()
    }

    /// IN EAX, 5658H with these registers: RAX, RBX, RCX, RDX, RSI, RDI after it.
    fn ask(&self, eax: u32, ecx: u32, ebx: u32) -> [u64; 6] {
        let high = 0xdead_0000_0000_0000;
        self.cpu.regs.iter().for_each(|r| r.store(high | 0x77, Relaxed));
        for (n, v) in [(0, eax), (1, ecx), (3, ebx)] {
            self.cpu.regs[n].store(high | u64::from(v), Relaxed);
        }
        let v = self.core().io.cpu_load(PORT, 4, Attrs::cpu(0)).unwrap();
        self.cpu.regs[0].store(v, Relaxed);
        [0, 3, 1, 2, 6, 7].map(|n| self.cpu.regs[n].load(Relaxed))
    }

    fn mouse(&self, command: u8, ebx: u32) -> [u64; 6] {
        self.ask(MAGIC, command.into(), ebx)
    }
}

#[test]
fn commands_answer_in_the_registers() {
    let b = Board::new(&[]);
    let keep = 0xdead_0000_0000_0077;
    let magic = u64::from(MAGIC);
    assert_eq!(b.ask(MAGIC, cmd::GETVERSION.into(), 0), [6, magic, 2, keep, keep, keep]);
    assert_eq!(b.ask(MAGIC, cmd::GETRAMSIZE.into(), 0)[..2], [64 << 20, 0x1177]);
    let uuid = b.ask(MAGIC, cmd::GETBIOSUUID.into(), 0);
    assert_eq!(uuid[..4], [0x3322_1100, 0x7766_5544, 0xbbaa_9988, 0xffee_ddcc]);
    assert_eq!(b.ask(MAGIC, cmd::GETHZ.into(), 0)[..2], [magic, 0xffff_ffff]);
    assert_eq!(b.ask(MAGIC, cmd::GET_VCPU_INFO.into(), 0)[0], 8);
    // Only CL counts; an unknown command and a wrong magic number say so.
    assert_eq!(b.ask(MAGIC, 0x0102_0300 | u32::from(cmd::GETVERSION), 0)[0], 6);
    assert_eq!(b.ask(MAGIC, 0x15, 0)[0], 0xffff_ffff);
    assert_eq!(b.ask(MAGIC + 1, cmd::GETVERSION.into(), 3)[..2], [0xffff_ffff, 0xdead_0000_0000_0003]);
    // Who is no vCPU has no registers.
    assert_eq!(b.core().io.load(&mut b.core().lock(), PORT, 4).unwrap(), 0xffff_ffff);
}

#[test]
fn older_machines_answer_less() {
    let b = Board::new(&[
        ("x-cmds-v2", "off"),
        ("x-report-vmx-type", "off"),
        ("x-signal-unsupported-cmd", "off"),
        ("vmware-vmx-version", "9"),
    ]);
    assert_eq!(b.ask(MAGIC, cmd::GETVERSION.into(), 0)[..3], [9, MAGIC.into(), 0xdead_0000_0000_000a]);
    assert_eq!(b.ask(MAGIC, cmd::GETBIOSUUID.into(), 0)[0], u64::from(MAGIC));
}

#[test]
fn a_write_answers_too() {
    let b = Board::new(&[]);
    b.cpu.regs[0].store(MAGIC.into(), Relaxed);
    b.cpu.regs[1].store(cmd::GETVERSION.into(), Relaxed);
    b.core().io.cpu_store(PORT, 4, MAGIC.into(), Attrs::cpu(0)).unwrap();
    assert_eq!(b.cpu.regs[0].load(Relaxed), 6);
}

const READ_ID: u32 = 0x4541_4552;
const ABSOLUTE: u32 = 0x5342_4152;
const DISABLE: u32 = 0xf5;

impl Board {
    fn send(&self, event: PointerEvent) -> bool {
        send_pointer(self.vm.world().scope(), &mut self.core().lock(), event, None)
    }
    fn out(&self, port: u64, v: u64) {
        self.core().io.store(&mut self.core().lock(), port, 1, v).unwrap();
    }
    /// What waits in the keyboard controller.
    fn ps2(&self) -> Vec<u64> {
        let m = &mut self.core().lock();
        let mut all = vec![];
        while self.core().io.load(m, 0x64, 1).unwrap() & 1 != 0 {
            all.push(self.core().io.load(m, 0x60, 1).unwrap());
        }
        all
    }
}

#[test]
fn the_mouse_takes_over_from_ps2_while_it_is_on() {
    let b = Board::new(&[]);
    // The PS/2 mouse on, as drivers of both do.
    b.out(0x64, 0xd4);
    b.out(0x60, 0xf4);
    assert_eq!(b.ps2(), [0xfa]);
    let step = PointerEvent { x: 3, y: 4, ..PointerEvent::default() };
    assert!(b.send(step));
    assert_eq!(b.ps2(), [0x28, 3, 0xfc]);
    // Nobody takes positions yet.
    let position = PointerEvent { x: 0x4000, y: 0x2000, absolute: true, buttons: 1, ..PointerEvent::default() };
    assert!(!b.send(position));
    assert_eq!(b.mouse(cmd::ABSPOINTER_STATUS, 0)[0], 0xffff_0000);
    b.mouse(cmd::ABSPOINTER_COMMAND, READ_ID);
    assert_eq!(b.mouse(cmd::ABSPOINTER_DATA, 1)[0], 0x3442_554a);
    // Movements now go here; the PS/2 mouse only says that there is something.
    assert!(b.send(step));
    assert_eq!(b.ps2(), [0x08, 1, 0]);
    assert_eq!(b.mouse(cmd::ABSPOINTER_DATA, 4)[..4], [0x1_0000, 3, 4, 0]);
    b.mouse(cmd::ABSPOINTER_COMMAND, ABSOLUTE);
    assert!(b.send(position));
    assert_eq!(b.mouse(cmd::ABSPOINTER_DATA, 4)[..4], [0x20, 0x8000, 0x4000, 0]);
    assert_eq!(b.ps2(), [0x08, 1, 0]);
    // A device that only moves still reaches the guest; buttons go where the positions go.
    assert!(b.send(step));
    assert_eq!(b.ps2(), [0x28, 3, 0xfc]);
    assert!(b.send(PointerEvent { buttons: 2, ..PointerEvent::default() }));
    assert_eq!(b.mouse(cmd::ABSPOINTER_STATUS, 0)[0], 4);
    assert_eq!(b.ps2(), [0x08, 1, 0]);
    b.mouse(cmd::ABSPOINTER_COMMAND, DISABLE);
    assert!(!b.send(position));
    assert!(b.send(step));
    assert_eq!(b.ps2(), [0x28, 3, 0xfc]);
}

#[test]
fn two_pointers_take_turns_as_the_user_says() {
    let b = Board::new(&[]);
    b.mouse(cmd::ABSPOINTER_COMMAND, READ_ID);
    let scope = b.vm.world().scope();
    let all = ui::input::devices(scope);
    assert_eq!(all.iter().map(|d| d.name).collect::<Vec<_>>(), ["QEMU PS/2 Keyboard", "QEMU PS/2 Mouse", "vmmouse"]);
    let first = |chosen: Option<&str>| ui::input::pointers(scope, &mut b.core().lock(), chosen)[0].path();
    let ps2 = all[1].object.path();
    assert_eq!(first(None), all[2].object.path());
    assert_eq!(first(Some(&ps2)), ps2);
}

#[test]
fn the_mouse_takes_its_commands_away_with_it() {
    let b = Board::new(&[]);
    assert_eq!(b.mouse(cmd::ABSPOINTER_STATUS, 0)[0], 0xffff_0000);
    let mouse = ui::input::devices(b.vm.world().scope()).into_iter().find(|d| d.name == "vmmouse").unwrap();
    mouse.object.cast::<Device>().unwrap().qdev_unrealize(&mut b.core().lock());
    assert_eq!(b.mouse(cmd::ABSPOINTER_STATUS, 0)[0], 0xffff_ffff);
}
