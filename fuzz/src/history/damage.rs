//! Damage to files at rest.

use arbitrary::Arbitrary;
use seawal::fuzzing::Files;
use seawal::io::Directory;
use seawal::sim::SimDisk;

/// One damage to one place.
#[derive(Arbitrary, Debug)]
pub(super) enum Damage {
    Flip {
        file: u8,
        at: u32,
        bit: u8,
    },
    Zeros {
        file: u8,
        block: u16,
    },
    Garbage {
        file: u8,
        block: u16,
        seed: u8,
    },
    /// A lost write: the place holds what it held earlier.
    Lost {
        file: u8,
        block: u16,
    },
    /// A misdirected write.
    Misdirected {
        from: u8,
        to: u8,
        block: u16,
        at: u16,
    },
    Cut {
        file: u8,
        bytes: u32,
    },
    Remove {
        file: u8,
    },
    Rename {
        file: u8,
        to: u8,
    },
    Copy {
        file: u8,
        to: u8,
    },
}

impl Damage {
    /// Applies the damage to a disk. `earlier` holds earlier contents of its files.
    pub(super) fn strike(&self, disk: &SimDisk, earlier: &Files) {
        let names = disk.file_names();
        if names.is_empty() {
            return;
        }
        let name = |file: u8| names[usize::from(file) % names.len()].clone();
        let block = u64::from(disk.block_bytes());
        // the offset of a block; mostly of one that is not all zeros
        let place = |name: &str, number: u16| {
            let bytes = disk.read_file(name).unwrap_or_default();
            let blocks: Vec<u64> = (0..(bytes.len() as u64).div_ceil(block)).collect();
            let used: Vec<u64> = blocks.iter().copied().filter(|n| !is_zero(&bytes, *n * block, block)).collect();
            let among = if used.is_empty() || number.is_multiple_of(8) { &blocks } else { &used };
            among.get(usize::from(number / 8) % among.len().max(1)).map(|n| n * block)
        };
        let content = |bytes: &[u8], at: u64| -> Vec<u8> {
            let end = (at + block).min(bytes.len() as u64);
            bytes.get(at as usize..end as usize).unwrap_or_default().to_vec()
        };
        match self {
            Damage::Flip { file, at, bit } => {
                let len = disk.read_file(&name(*file)).map_or(0, |bytes| bytes.len() as u64);
                let _ = disk.flip_bit(&name(*file), u64::from(*at) % len.max(1), u32::from(*bit % 8));
            }
            Damage::Zeros { file, block: number } => {
                if let Some(at) = place(&name(*file), *number) {
                    let len = content(&disk.read_file(&name(*file)).unwrap(), at).len();
                    disk.overwrite(&name(*file), at, &vec![0; len]).unwrap();
                }
            }
            Damage::Garbage { file, block: number, seed } => {
                if let Some(at) = place(&name(*file), *number) {
                    let len = content(&disk.read_file(&name(*file)).unwrap(), at).len();
                    let garbage: Vec<u8> = (0..len).map(|n| (n as u8).wrapping_mul(31) ^ seed).collect();
                    disk.overwrite(&name(*file), at, &garbage).unwrap();
                }
            }
            Damage::Lost { file, block: number } => {
                let name = name(*file);
                if let (Some(at), Some(old)) = (place(&name, *number), earlier.get(&name)) {
                    disk.overwrite(&name, at, &content(old, at)).unwrap();
                }
            }
            Damage::Misdirected { from, to, block: number, at } => {
                let (from, to) = (name(*from), name(*to));
                if let (Some(source), Some(target)) = (place(&from, *number), place(&to, *at)) {
                    let room = content(&disk.read_file(&to).unwrap(), target).len();
                    let mut bytes = content(&disk.read_file(&from).unwrap(), source);
                    bytes.truncate(room);
                    disk.overwrite(&to, target, &bytes).unwrap();
                }
            }
            Damage::Cut { file, bytes } => {
                let len = disk.read_file(&name(*file)).map_or(0, |bytes| bytes.len() as u64);
                let _ = disk.truncate_file(&name(*file), u64::from(*bytes) % len.max(1));
            }
            Damage::Remove { file } => {
                let _ = disk.remove_file(&name(*file));
            }
            Damage::Rename { file, to } | Damage::Copy { file, to } => {
                let (from, to) = (name(*file), name(*to));
                if from != to {
                    disk.write_file(&to, &disk.read_file(&from).unwrap());
                    if matches!(self, Damage::Rename { .. }) {
                        disk.remove_file(&from).unwrap();
                    }
                }
            }
        }
    }
}

fn is_zero(bytes: &[u8], at: u64, len: u64) -> bool {
    bytes.iter().skip(at as usize).take(len as usize).all(|byte| *byte == 0)
}
