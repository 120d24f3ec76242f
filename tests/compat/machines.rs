//! The machines of the stores. Their encodings never change: they are part of the fixtures.

use crate::pack::hex;
use seawal::kv::{Kv, KvCommand};
use seawal::machine::{Access, DecodeError, Footprint, StateMachine};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, BufRead, Write};

/// A machine whose state can be written down, line by line.
pub(crate) trait Listed: StateMachine<Rejection: Debug> {
    /// One line for each entry, in order.
    fn entries(&self) -> Vec<String>;

    /// A command that adds an entry to any of the stores.
    fn addition() -> Self::Command;
}

/// Bytes as text where they are short, else their length and checksum.
pub(crate) fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= 100 {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    format!("{} bytes with CRC-32 {:08x}", bytes.len(), crc32fast::hash(bytes))
}

impl Listed for Kv {
    fn entries(&self) -> Vec<String> {
        let tables = self.tables().map(str::to_owned).collect::<Vec<_>>();
        let lines = tables.iter().flat_map(|table| {
            self.prefix(table, "").map(move |(key, value)| format!("{table:?} {} {}", shown(key), shown(value)))
        });
        lines.collect()
    }

    fn addition() -> KvCommand {
        KvCommand::put("addition", "key", "value")
    }
}

/// Balances by account: a machine with encodings written by hand. A command that is applied twice
/// shows.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    balances: BTreeMap<u16, i64>,
}

/// Moves an amount. Account 0 stands for the world outside and has no balance.
#[derive(Clone)]
pub(crate) struct Transfer {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) amount: i64,
}

impl StateMachine for Ledger {
    const NAME: &'static str = "ledger";
    const VERSION: u32 = 7;
    type Command = Transfer;
    type Reply = ();
    type Rejection = &'static str;

    fn apply(&mut self, transfer: &Transfer) -> Result<((), Transfer), &'static str> {
        let Transfer { from, to, amount } = *transfer;
        let balance = self.balances.get(&from).copied().unwrap_or(0);
        if from != 0 && balance < amount {
            return Err("the account does not hold so much");
        }
        for (account, change) in [(from, -amount), (to, amount)] {
            if account != 0 {
                *self.balances.entry(account).or_default() += change;
            }
        }
        self.balances.retain(|_, balance| *balance != 0);
        Ok(((), Transfer { from: to, to: from, amount }))
    }

    fn footprint(transfer: &Transfer) -> Footprint {
        let key = |all: Footprint, account: u16| all.and_key(Access::Exclusive, &account.to_be_bytes());
        [transfer.from, transfer.to].into_iter().filter(|account| *account != 0).fold(Footprint::none(), key)
    }

    fn encode(transfer: &Transfer, out: &mut Vec<u8>) {
        out.extend_from_slice(&transfer.from.to_le_bytes());
        out.extend_from_slice(&transfer.to.to_le_bytes());
        out.extend_from_slice(&transfer.amount.to_le_bytes());
    }

    fn decode(bytes: &[u8], version: u32) -> Result<Transfer, DecodeError> {
        assert_eq!(version, Self::VERSION);
        let bytes: [u8; 12] = bytes.try_into().map_err(|_| DecodeError::new("a transfer takes 12 bytes"))?;
        let [a, b, c, d, amount @ ..] = bytes;
        let (from, to) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        Ok(Transfer { from, to, amount: i64::from_le_bytes(amount) })
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        for (account, balance) in &self.balances {
            out.write_all(&account.to_le_bytes())?;
            out.write_all(&balance.to_le_bytes())?;
        }
        Ok(())
    }

    fn load(input: &mut dyn BufRead, version: u32) -> Result<Self, DecodeError> {
        assert_eq!(version, Self::VERSION);
        let mut ledger = Ledger::default();
        while !input.fill_buf()?.is_empty() {
            let (mut account, mut balance) = ([0; 2], [0; 8]);
            input.read_exact(&mut account)?;
            input.read_exact(&mut balance)?;
            ledger.balances.insert(u16::from_le_bytes(account), i64::from_le_bytes(balance));
        }
        Ok(ledger)
    }
}

impl Listed for Ledger {
    fn entries(&self) -> Vec<String> {
        self.balances.iter().map(|(account, balance)| format!("{account} {balance}")).collect()
    }

    fn addition() -> Transfer {
        Transfer { from: 0, to: u16::MAX, amount: 1 }
    }
}

/// A machine with derived encodings.
#[cfg(feature = "serde")]
pub(crate) mod notes {
    use super::{Access, Footprint, Listed};
    use seawal::machine::SerdeMachine;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;

    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    pub(crate) struct Notes {
        notes: BTreeMap<u32, Note>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Note {
        pub(crate) text: String,
        pub(crate) weight: Option<f64>,
        pub(crate) tags: Vec<(char, i16)>,
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub(crate) enum Edit {
        Write { number: u32, note: Note },
        Erase { number: u32 },
    }

    impl SerdeMachine for Notes {
        const NAME: &'static str = "notes";
        const VERSION: u32 = 3;
        type Command = Edit;
        type Reply = ();
        type Rejection = &'static str;

        fn apply(&mut self, edit: &Edit) -> Result<((), Edit), &'static str> {
            let (number, before) = match edit {
                Edit::Write { number, note } => (*number, self.notes.insert(*number, note.clone())),
                Edit::Erase { number } => (*number, Some(self.notes.remove(number).ok_or("there is no such note")?)),
            };
            let inverse = match before {
                Some(note) => Edit::Write { number, note },
                None => Edit::Erase { number },
            };
            Ok(((), inverse))
        }

        fn footprint(edit: &Edit) -> Footprint {
            let (Edit::Write { number, .. } | Edit::Erase { number }) = edit;
            Footprint::key(Access::Exclusive, &number.to_be_bytes())
        }
    }

    impl Listed for Notes {
        fn entries(&self) -> Vec<String> {
            self.notes.iter().map(|(number, note)| format!("{number} {note:?}")).collect()
        }

        fn addition() -> Edit {
            let note = Note { text: "addition".into(), weight: None, tags: vec![] };
            Edit::Write { number: u32::MAX, note }
        }
    }
}

/// One line for each record of a log; long records are shown by length and checksum.
pub(crate) fn record_lines(records: &[(u64, Vec<u8>)]) -> Vec<String> {
    let line = |(lsn, bytes): &(u64, Vec<u8>)| match bytes.len() {
        0..=48 => format!("{lsn} {}", hex(bytes)),
        len => format!("{lsn} {} and so on: {len} bytes with CRC-32 {:08x}", hex(&bytes[..16]), crc32fast::hash(bytes)),
    };
    records.iter().map(line).collect()
}
