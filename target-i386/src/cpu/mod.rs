//! CPU models, their properties, and the QOM types of CPUs.
//!
//! | file | what |
//! |---|---|
//! | `words` | names of feature bits, and where each is read |
//! | `features` | sets of features, what the engine implements, what is taken away |
//! | `models` | the models as data |
//! | `caches`, `topology`, `cpuid` | the CPUID leaves |
//! | `config` | a CPU's values, from model and properties to what the guest sees |
//! | `props` | QOM properties |
//! | `object` | type `x86_64-cpu` and the types of the models; realize |
//! | `run` | what the machine asks of its registers; snapshots |
//! | `dump` | `info registers` |
//! | `option` | `-cpu` |
//! | `query` | lists and expansions for QMP |

pub mod caches;
pub mod config;
pub mod cpuid;
pub(crate) mod dump;
pub mod features;
pub mod models;
pub mod object;
pub mod option;
mod props;
pub mod query;
mod run;
pub mod topology;
pub mod words;

pub use object::X86Cpu;
pub use option::{CpuOption, help, parse_cpu_option};
pub use query::{definitions, expand_model};
