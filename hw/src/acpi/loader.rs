//! The linker/loader script, fw_cfg file `etc/table-loader`: 128-byte commands that firmware carries out on the files it
//! has read. Source: SeaBIOS `romfile_loader` (the interface shared by SeaBIOS, OVMF and QEMU).

/// Where firmware puts a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Zone {
    /// Anywhere below 4 GiB.
    High = 1,
    /// The F segment, for anchors that are searched for.
    Fseg = 2,
}

const ENTRY: usize = 128;
const NAME: usize = 56;

/// The script, in order of execution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loader {
    script: Vec<u8>,
}

impl Loader {
    fn command(&mut self, command: u32, names: &[&str], rest: &[u8]) {
        let start = self.script.len();
        self.script.extend_from_slice(&command.to_le_bytes());
        for name in names {
            let bytes = name.as_bytes();
            self.script.extend(bytes.iter().copied().chain(std::iter::repeat(0)).take(NAME));
        }
        self.script.extend_from_slice(rest);
        self.script.resize(start + ENTRY, 0);
    }

    /// ALLOCATE: reads `file` into memory at an alignment, before anything refers to it.
    pub fn allocate(&mut self, file: &str, align: u32, zone: Zone) {
        let [a, b, c, d] = align.to_le_bytes();
        self.command(1, &[file], &[a, b, c, d, zone as u8]);
    }

    /// ADD_POINTER: adds the address of `pointee` to the `size`-byte field at `offset` of `file`.
    pub fn add_pointer(&mut self, file: &str, pointee: &str, offset: u32, size: u8) {
        let [a, b, c, d] = offset.to_le_bytes();
        self.command(2, &[file, pointee], &[a, b, c, d, size]);
    }

    /// ADD_CHECKSUM: makes the bytes `start .. start + length` of `file` sum to 0 by its byte at `offset`.
    pub fn add_checksum(&mut self, file: &str, offset: u32, start: u32, length: u32) {
        let rest: Vec<u8> = [offset, start, length].iter().flat_map(|v| v.to_le_bytes()).collect();
        self.command(3, &[file], &rest);
    }

    /// The file's bytes, padded with empty commands to a multiple of 4 KiB.
    pub fn finish(mut self) -> Vec<u8> {
        let size = self.script.len().next_multiple_of(4096);
        self.script.resize(size, 0);
        self.script
    }
}
