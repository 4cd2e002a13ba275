//! Registers that go round a loop without being stored: what a loop changes and reads again stays a value, which ways out store.
//!
//! It is right whatever the sets are; they decide where stores happen. A register that is changed but not read again before it gets a
//! new value is stored each round: kept, it would take a register from those that are read.

use super::{
    super::target::Target,
    form::{Edge, Plan, Request},
};

/// By block, registers that need not be in the env at its start; `place` says where blocks are in the order they are lowered in.
pub(super) fn carried<T: Target>(plan: &Plan<T>, q: &Request, place: &[usize]) -> Vec<u32> {
    let n = plan.blocks.len();
    let mut before = vec![Vec::new(); n];
    for (b, s) in plan.blocks.iter().enumerate() {
        for e in [s.taken, s.next] {
            if let Some(Edge::In(to)) = e {
                before[to].push(b)
            }
        }
    }
    let mut carried = vec![0; n];
    let back = |head: usize| before[head].iter().copied().filter(move |&b| place[b] >= place[head]);
    if (0..n).all(|head| back(head).next().is_none()) {
        return carried;
    }
    let uses: Vec<_> = (0..n).map(|b| Uses::of(plan, q, b)).collect();
    let live = live(plan, &uses);
    for (head, carried) in carried.iter_mut().enumerate() {
        // The loop: from where there is a way to the head that does not pass it.
        let mut inside = vec![false; n];
        inside[head] = true;
        let mut todo: Vec<_> = back(head).collect();
        let mut written = if todo.is_empty() { None } else { uses[head].written };
        while let Some(b) = todo.pop() {
            if !std::mem::replace(&mut inside[b], true) {
                written = written.zip(uses[b].written).map(|(w, v)| w | v);
                todo.extend(&before[b])
            }
        }
        *carried = written.unwrap_or(0) & live[head]
    }
    carried
}

/// What a block does with registers.
struct Uses {
    /// Reads before it writes them.
    read: u32,
    /// Writes; nothing if it has a rare instruction, which needs all in the env.
    written: Option<u32>,
}
impl Uses {
    fn of<T: Target>(plan: &Plan<T>, q: &Request, block: usize) -> Uses {
        let (mut read, mut written, mut rare) = (0, 0, false);
        for i in &plan.insns[plan.blocks[block].insns.clone()] {
            rare |= T::is_rare(i.d.form);
            let (r, w) = T::touches(&q.bytes[i.off as usize..], q.mode);
            read |= r & !written;
            written |= w
        }
        Uses { read, written: (!rare).then_some(written) }
    }
}
/// By block, registers that the region may read from its start on before it writes them.
fn live<T: Target>(plan: &Plan<T>, uses: &[Uses]) -> Vec<u32> {
    let mut live = vec![0; uses.len()];
    loop {
        let mut again = false;
        for (b, s) in plan.blocks.iter().enumerate().rev() {
            let out = [s.taken, s.next].into_iter().fold(0, |m, e| match e {
                Some(Edge::In(to)) => m | live[to],
                _ => m,
            });
            let now = uses[b].read | out & !uses[b].written.unwrap_or(0);
            again |= now != std::mem::replace(&mut live[b], now)
        }
        if !again {
            return live;
        }
    }
}
