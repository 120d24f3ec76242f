//! Redoing many commands at once: sorted, so that each part of the tree is visited once, in order.
//!
//! Only blind writes are gathered, of which the last to a key counts. A compare-and-set looks at the state, so all
//! before it is carried out first.

use super::codec::{Part, visit};
use super::{Kv, KvRejection, check_key, check_value};
use crate::machine::DecodeError;

/// A blind write, its key in the arena.
struct Write<'a> {
    /// The key's first bytes, as a number: most comparisons need no more.
    head: u64,
    key: (usize, usize),
    /// None removes the key.
    value: Option<&'a [u8]>,
}

#[derive(Default)]
struct Gathered<'a> {
    arena: Vec<u8>,
    writes: Vec<Write<'a>>,
}

impl<'a> Gathered<'a> {
    fn add(&mut self, table: &str, key: &[u8], value: Option<&'a [u8]>) {
        let start = self.arena.len();
        self.arena.extend_from_slice(table.as_bytes());
        self.arena.push(0);
        self.arena.extend_from_slice(key);
        let composite = &self.arena[start..];
        let mut head = [0; 8];
        let len = composite.len().min(8);
        head[..len].copy_from_slice(&composite[..len]);
        self.writes.push(Write { head: u64::from_be_bytes(head), key: (start, self.arena.len()), value });
    }

    /// Carries out what was gathered, in the order of keys.
    fn flush(&mut self, kv: &mut Kv) {
        let arena = &self.arena;
        let key = |write: &Write<'_>| &arena[write.key.0..write.key.1];
        // stable: writes to one key stay in their order, and the last of them counts
        self.writes.sort_by(|a, b| a.head.cmp(&b.head).then_with(|| key(a).cmp(key(b))));
        for (at, write) in self.writes.iter().enumerate() {
            let overwritten = self.writes.get(at + 1).is_some_and(|next| key(next) == key(write));
            if overwritten {
                continue;
            }
            match write.value {
                Some(value) => drop(kv.tree.insert(key(write), value)),
                None => drop(kv.tree.remove(key(write))),
            }
        }
        self.arena.clear();
        self.writes.clear();
    }
}

/// Why the command at an index was not redone.
pub(super) type BulkFault = (usize, Result<KvRejection, DecodeError>);

/// Redoes the commands in order, or as if in order.
pub(super) fn redo(kv: &mut Kv, commands: &[&[u8]]) -> Result<(), BulkFault> {
    let mut gathered = Gathered::default();
    for (index, command) in commands.iter().enumerate() {
        let visited = visit(command, |part| match part {
            Part::Put { table, key, value } => {
                check_key(table, key)?;
                check_value(value)?;
                gathered.add(table, key, Some(value));
                Ok(())
            }
            Part::Delete { table, key } => {
                check_key(table, key)?;
                gathered.add(table, key, None);
                Ok(())
            }
            other => {
                gathered.flush(kv);
                kv.redo_part(&other)
            }
        });
        match visited {
            Ok(Ok(())) => {}
            Ok(Err(rejection)) => return Err((index, Ok(rejection))),
            Err(error) => return Err((index, Err(error))),
        }
    }
    gathered.flush(kv);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvCommand;
    use crate::machine::StateMachine;
    use proptest::prelude::*;

    fn command() -> impl Strategy<Value = KvCommand> {
        let key = || prop::collection::vec(0u8..3, 0..12);
        let single = prop_oneof![
            (key(), any::<Vec<u8>>()).prop_map(|(k, v)| KvCommand::put("", k, v)),
            (key(), any::<u8>()).prop_map(|(k, v)| KvCommand::put("t", k, [v])),
            key().prop_map(|k| KvCommand::delete("", k)),
        ];
        prop::collection::vec(single, 1..5).prop_map(KvCommand::batch)
    }

    proptest! {
        #[test]
        fn redoing_at_once_is_redoing_in_order(commands in prop::collection::vec(command(), 0..60), cas in any::<u8>()) {
            let mut one_by_one = Kv::default();
            let mut encoded = Vec::new();
            for (n, command) in commands.iter().enumerate() {
                let mut commands = vec![command.clone()];
                if n % 7 == 3 {
                    let expected = one_by_one.get("", [1]).map(<[u8]>::to_vec);
                    commands.insert(0, KvCommand::CompareAndSet {
                        table: "".into(), key: vec![1], expected, new: Some(vec![cas, n as u8]),
                    });
                }
                for command in commands {
                    one_by_one.apply(&command).unwrap();
                    let mut bytes = Vec::new();
                    Kv::encode(&command, &mut bytes);
                    encoded.push(bytes);
                }
            }
            let mut at_once = Kv::default();
            let slices: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
            redo(&mut at_once, &slices).unwrap();
            let saved = |kv: &Kv| { let mut out = Vec::new(); kv.save(&mut out).unwrap(); out };
            prop_assert_eq!(saved(&at_once), saved(&one_by_one));
        }
    }
}
