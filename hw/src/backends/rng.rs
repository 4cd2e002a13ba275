//! Sources of random bytes: objects `rng-random` (a file of the host, `/dev/urandom` unless the user names another) and `rng-builtin`
//! (the host kernel's generator). Not built: `rng-egd`.

use qom::{Base, Class, Error, Object, Prop, Property, Result, UserCreatable, of_class};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

/// The kernel's generator, as a file.
const URANDOM: &str = "/dev/urandom";

/// Type `rng-backend`.
#[derive(Object)]
#[qom(name = "rng-backend", parent = Base, abstract, interfaces(dyn UserCreatable), class_init = RngBackend::class_init)]
pub struct RngBackend {
    parent: Base,
    /// What `rng-random` opens.
    filename: Prop<String>,
    file: OnceLock<File>,
}

impl RngBackend {
    fn class_init(c: &mut Class) {
        c.property(Property::computed::<bool>("opened").getter(|r: &RngBackend| Ok(r.file.get().is_some())));
    }

    /// Fills the start of `buf`; how many bytes there were. Never waits: 0, if the source has none now.
    pub fn read(&self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        let Some(mut file) = self.file.get() else { return 0 };
        while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
            match file.read(rest) {
                Ok(0) | Err(_) => break,
                Ok(n) => done += n,
            }
        }
        done
    }
}

impl UserCreatable for RngBackend {
    fn complete(&self) -> Result<()> {
        let name = Some(self.filename.get()).filter(|n| !n.is_empty()).unwrap_or_else(|| URANDOM.into());
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&name);
        let file = file.map_err(|e| {
            let text = e.to_string();
            Error::generic(format!("Could not open '{name}': {}", text.split(" (os error").next().unwrap_or(&text)))
        })?;
        _ = self.file.set(file);
        Ok(())
    }
}

/// Type `rng-random`.
#[derive(Object)]
#[qom(name = "rng-random", parent = RngBackend, class_init = RngRandom::class_init, instance_init = RngRandom::instance_init)]
pub struct RngRandom {
    parent: RngBackend,
}

impl RngRandom {
    fn class_init(c: &mut Class) {
        let name = Property::field("filename", |r: &RngBackend| &r.filename).type_named("string");
        c.property(name.check(|r: &RngBackend| match r.file.get() {
            Some(_) => Err(Error::generic("Insufficient permission to perform this operation")),
            None => Ok(()),
        }));
    }

    fn instance_init(&self) -> Result<()> {
        self.filename.set(URANDOM.into());
        Ok(())
    }
}

/// Type `rng-builtin`.
#[derive(Object)]
#[qom(name = "rng-builtin", parent = RngBackend)]
pub struct RngBuiltin {
    parent: RngBackend,
}

/// A source of its own, for a device whose user names none.
///
/// # Errors
/// The host has none.
pub fn builtin(owner: &dyn Object) -> Result<qom::ObjRef> {
    let base = owner.base();
    let source = base.scope().object_new("rng-builtin")?;
    base.add_child("default-backend", &source)?;
    if let Err(e) = of_class::<RngBackend>(&*source).complete() {
        source.unparent();
        return Err(e);
    }
    Ok(source)
}
