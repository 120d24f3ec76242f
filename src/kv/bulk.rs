//! Redoing many commands at once: their writes are gathered, sorted, and merged into the tree.
//!
//! Only blind writes are gathered, of which the last to a key counts. A compare-and-set looks at the state, so all
//! before it is carried out first.

use super::codec::{Part, visit};
use super::{Kv, KvRejection, check_key, check_value};
use crate::machine::DecodeError;

/// Writes are gathered until they take as much memory as this share of what the tree holds: so each entry of the tree is
/// copied a few times in all, however many writes there are.
const SHARE: u64 = 2;
/// At least so much is gathered.
const LEAST_BYTES: u64 = 128 << 20;
/// And no more than this.
const MOST_BYTES: u64 = 1 << 30;

/// Why the command at an index was not redone.
pub(super) type BulkFault = (usize, Result<KvRejection, DecodeError>);

/// Redoes the commands in order, or as if in order. What they write is gathered in the machine, until that is enough or redo is over.
pub(super) fn redo(kv: &mut Kv, commands: &[&[u8]]) -> Result<(), BulkFault> {
    let mut gathered = kv.gathered.take().unwrap_or_default();
    for (index, command) in commands.iter().enumerate() {
        let visited = visit(command, |part| {
            let (table, key, value) = match part {
                Part::Put { table, key, value } => (table, key, Some(value)),
                Part::Delete { table, key } => (table, key, None),
                other => {
                    kv.tree.merge(&mut gathered);
                    return kv.redo_part(&other);
                }
            };
            check_key(table, key)?;
            value.map_or(Ok(()), check_value)?;
            gathered.push([table.as_bytes(), &[0], key], value);
            if gathered.size() as u64 > limit(kv) {
                kv.tree.merge(&mut gathered);
            }
            Ok(())
        });
        match visited {
            Ok(Ok(())) => {}
            Ok(Err(rejection)) => return Err((index, Ok(rejection))),
            Err(error) => return Err((index, Err(error))),
        }
    }
    kv.gathered = Some(gathered);
    Ok(())
}

/// How much may be gathered.
fn limit(kv: &Kv) -> u64 {
    (kv.tree.payload_bytes() / SHARE).clamp(LEAST_BYTES, MOST_BYTES)
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
            for part in slices.chunks(usize::from(cas) + 1) {
                redo(&mut at_once, part).unwrap();
            }
            at_once.finish_redo();
            let saved = |kv: &Kv| { let mut out = Vec::new(); kv.save(&mut out).unwrap(); out };
            prop_assert_eq!(saved(&at_once), saved(&one_by_one));
        }
    }
}
