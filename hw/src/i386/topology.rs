//! APIC ids from CPU numbers: each level of the topology takes as many bits as it needs.
//! Source: Intel SDM vol. 3 §10.9.2 (APIC id fields by level).

use hw_core::machine::CpuSlot;
use hw_core::smp::Topology;

/// Bits that hold `n` different values.
fn width(n: u32) -> u32 {
    n.max(1).next_power_of_two().trailing_zeros()
}

/// Where CPU `index` is in the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Socket.
    pub socket: u32,
    /// Die in the socket.
    pub die: u32,
    /// Module in the die.
    pub module: u32,
    /// Core in the module.
    pub core: u32,
    /// Thread in the core.
    pub thread: u32,
}

impl Place {
    /// The place of the `index`th CPU: threads vary first.
    pub fn of(t: &Topology, index: u32) -> Place {
        let (threads, cores, modules, dies) = (t.threads.max(1), t.cores.max(1), t.modules.max(1), t.dies.max(1));
        Place {
            thread: index % threads,
            core: index / threads % cores,
            module: index / threads / cores % modules,
            die: index / threads / cores / modules % dies,
            socket: index / threads / cores / modules / dies,
        }
    }

    /// The APIC id of this place.
    pub fn apic_id(self, t: &Topology) -> u32 {
        let mut id = self.socket;
        for (n, of) in [(self.die, t.dies), (self.module, t.modules), (self.core, t.cores), (self.thread, t.threads)] {
            id = id << width(of) | n;
        }
        id
    }

    /// The properties that describe it, by QEMU's names.
    pub fn properties(self, t: &Topology) -> Vec<(&'static str, i64)> {
        let mut props = vec![("socket-id", i64::from(self.socket))];
        if t.dies > 1 {
            props.push(("die-id", self.die.into()));
        }
        if t.modules > 1 {
            props.push(("module-id", self.module.into()));
        }
        props.extend([("core-id", i64::from(self.core)), ("thread-id", i64::from(self.thread))]);
        props
    }
}

/// All CPUs that a topology has room for; `cpu` is left open.
pub fn possible(t: &Topology, cpu_type: &str) -> Vec<CpuSlot> {
    let slot = |index: u32| {
        let place = Place::of(t, index);
        CpuSlot {
            arch_id: place.apic_id(t).into(),
            props: place.properties(t),
            vcpus: 1,
            type_name: cpu_type.to_owned(),
            cpu: None,
        }
    };
    (0..t.max_cpus).map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_numbers_of_cores_leave_gaps() {
        let t = Topology {
            sockets: 2,
            dies: 1,
            modules: 1,
            cores: 3,
            threads: 2,
            cpus: 12,
            max_cpus: 12,
            ..Topology::default()
        };
        let ids: Vec<u64> = possible(&t, "x").iter().map(|s| s.arch_id).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
    }
}
