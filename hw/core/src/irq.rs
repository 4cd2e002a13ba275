//! Interrupt lines. A [`Line`] is an input of somebody; an [`IrqOut`] is an output that drives at most one line. Setting a
//! level is an ordinary call, made before the access that caused it retires.
//!
//! In the composition tree an input is an object of type `irq`, an output a link to one. Levels are not part of a snapshot: whoever
//! drives a line drives it again after loading.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::RwLock;
use qom::{Base, Level, ObjRef, Object};

use crate::locked::Locked;

type Target = Box<dyn Fn(&mut Locked, bool) + Send + Sync>;
/// Sees every level set on a line or by an output; called with the machine locked.
pub type Watch = Arc<dyn Fn(&mut Locked, bool) + Send + Sync>;

#[derive(Default)]
struct Watcher {
    on: AtomicBool,
    call: RwLock<Option<Watch>>,
}

impl Watcher {
    fn set(&self, watch: Option<Watch>) {
        self.on.store(watch.is_some(), Ordering::Release);
        *self.call.write() = watch;
    }

    fn tell(&self, m: &mut Locked, level: bool) {
        if self.on.load(Ordering::Acquire) {
            let call = self.call.read().clone();
            if let Some(call) = call {
                call(m, level);
            }
        }
    }
}

/// An input line. A handle: clones name the same line.
#[derive(Clone)]
pub struct Line(Arc<LineInner>);

struct LineInner {
    target: Target,
    level: AtomicBool,
    watcher: Watcher,
    node: OnceLock<Weak<dyn Object>>,
}

impl Line {
    /// A line that calls `f`. `f` must not own the object that owns the line.
    pub fn new(f: impl Fn(&mut Locked, bool) + Send + Sync + 'static) -> Self {
        Self(Arc::new(LineInner {
            target: Box::new(f),
            level: AtomicBool::new(false),
            watcher: Watcher::default(),
            node: OnceLock::new(),
        }))
    }

    /// Input `n` of `object`.
    pub fn to<T: Level>(object: &T, n: usize, f: fn(&T, &mut Locked, usize, bool)) -> Self {
        let handle = object.this();
        Self::new(move |m, level| _ = handle.with(|o| f(o, m, n, level)))
    }

    /// A line that passes the opposite level on.
    pub fn inverted(&self) -> Self {
        let to = self.clone();
        Self::new(move |m, level| to.set(m, !level))
    }

    /// Sets the level. The target is called also when the level is what it was.
    pub fn set(&self, m: &mut Locked, level: bool) {
        self.0.level.store(level, Ordering::Relaxed);
        self.0.watcher.tell(m, level);
        (self.0.target)(m, level);
    }

    /// High, then low.
    pub fn pulse(&self, m: &mut Locked) {
        self.set(m, true);
        self.set(m, false);
    }

    /// The level that was set last.
    pub fn level(&self) -> bool {
        self.0.level.load(Ordering::Relaxed)
    }

    /// Shows every level set on the line to `watch` as well (qtest's interception of inputs); `None` ends it.
    pub fn watch(&self, watch: Option<Watch>) {
        self.0.watcher.set(watch);
    }

    /// Whether both handles name one line.
    pub fn is(&self, other: &Line) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The line's object in the composition tree.
    pub fn node(&self) -> Option<ObjRef> {
        self.0.node.get().and_then(Weak::upgrade)
    }

    /// Makes the line's `irq` object a child of `parent`, under `name`. Once only.
    ///
    /// # Errors
    /// The name is taken.
    pub fn publish(&self, parent: &dyn Object, name: &str) -> qom::Result<()> {
        if self.node().is_some() {
            return Ok(());
        }
        let node = parent.base().scope().object_new("irq")?;
        if let Some(n) = node.cast::<IrqNode>() {
            _ = n.line.set(self.clone());
        }
        parent.add_child(name, &node)?;
        _ = self.0.node.set(Arc::downgrade(&node));
        Ok(())
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

/// An output line of a device, to be kept in a field. Clones name the same output.
#[derive(Clone, Default)]
pub struct IrqOut(Arc<OutInner>);

#[derive(Default)]
struct OutInner {
    line: ArcSwapOption<LineInner>,
    level: AtomicBool,
    watcher: Watcher,
}

impl IrqOut {
    /// Sets the level; the connected line is called also when the level is what it was.
    pub fn set(&self, m: &mut Locked, level: bool) {
        self.0.level.store(level, Ordering::Relaxed);
        self.0.watcher.tell(m, level);
        let line = self.0.line.load_full();
        if let Some(line) = line {
            Line(line).set(m, level);
        }
    }

    /// Sets the level high.
    pub fn raise(&self, m: &mut Locked) {
        self.set(m, true);
    }

    /// Sets the level low.
    pub fn lower(&self, m: &mut Locked) {
        self.set(m, false);
    }

    /// High, then low.
    pub fn pulse(&self, m: &mut Locked) {
        self.set(m, true);
        self.set(m, false);
    }

    /// The level that was set last.
    pub fn level(&self) -> bool {
        self.0.level.load(Ordering::Relaxed)
    }

    /// Connects the output, or disconnects it. The level is not driven by that.
    pub fn connect(&self, line: Option<Line>) {
        self.0.line.store(line.map(|l| l.0));
    }

    /// The line the output drives.
    pub fn line(&self) -> Option<Line> {
        self.0.line.load_full().map(Line)
    }

    /// Shows every level the output sets to `watch` as well (qtest's interception of outputs); `None` ends it.
    pub fn watch(&self, watch: Option<Watch>) {
        self.0.watcher.set(watch);
    }
}

impl std::fmt::Debug for IrqOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IrqOut({})", self.level())
    }
}

/// An input line in the composition tree.
#[derive(qom::Object)]
#[qom(name = "irq", parent = Base)]
pub struct IrqNode {
    parent: Base,
    line: OnceLock<Line>,
}

impl IrqNode {
    /// The line.
    pub fn line(&self) -> Option<Line> {
        self.line.get().cloned()
    }
}

/// A line that is high while any of its `n` inputs is: several sources on one input.
pub fn or_gate(n: usize, output: Line) -> Vec<Line> {
    let levels: Arc<[AtomicBool]> = (0..n).map(|_| AtomicBool::new(false)).collect();
    let input = |i: usize| {
        let (levels, output) = (levels.clone(), output.clone());
        Line::new(move |m, level| {
            if let Some(l) = levels.get(i) {
                l.store(level, Ordering::Relaxed);
            }
            let any = levels.iter().any(|l| l.load(Ordering::Relaxed));
            output.set(m, any);
        })
    };
    (0..n).map(input).collect()
}

/// A line that sets all of `outputs`: one source on several inputs.
pub fn split(outputs: Vec<Line>) -> Line {
    Line::new(move |m, level| outputs.iter().for_each(|o| o.set(m, level)))
}
