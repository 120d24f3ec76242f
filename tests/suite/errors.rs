//! Errors as programs meet them: `?` on every call, in every type of result, and what to do next.

use crate::common::{manual, open_on};
use seawal::kv::{Kv, KvCommand, KvRejection};
use seawal::machine::{DecodeError, Footprint, StateMachine};
use seawal::sim::SimDisk;
use seawal::{Durability, Engine, Error, ExecuteError};
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::path::Path;

/// A machine whose commands cannot be rejected.
#[derive(Clone, Default)]
struct Sum(i64);

impl StateMachine for Sum {
    const NAME: &'static str = "sum";
    const VERSION: u32 = 1;
    type Command = i64;
    type Reply = i64;
    type Rejection = Infallible;

    fn apply(&mut self, by: &i64) -> Result<(i64, i64), Infallible> {
        self.0 = self.0.wrapping_add(*by);
        Ok((self.0, by.wrapping_neg()))
    }
    fn encode(by: &i64, out: &mut Vec<u8>) {
        out.extend(by.to_le_bytes());
    }
    fn decode(bytes: &[u8], _version: u32) -> Result<i64, DecodeError> {
        bytes.try_into().map(i64::from_le_bytes).map_err(|_| DecodeError::new("not eight bytes"))
    }
    fn save(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        out.write_all(&self.0.to_le_bytes())
    }
    fn load(input: &mut dyn std::io::BufRead, _version: u32) -> Result<Self, DecodeError> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes).map_err(|_| DecodeError::new("not eight bytes"))?;
        Ok(Sum(i64::from_le_bytes(bytes)))
    }
    fn footprint(_: &i64) -> Footprint {
        Footprint::everything(seawal::machine::Access::Exclusive)
    }
}

/// The shortest error of a program: one case for the store.
#[derive(Debug)]
enum Plain {
    Store(Error),
    NoMoney,
}

impl<E: Into<Error>> From<E> for Plain {
    fn from(error: E) -> Plain {
        Plain::Store(error.into())
    }
}

/// What `thiserror` would derive, with a case for rejections.
#[derive(Debug)]
enum Derived {
    Store(Error),
    Command(ExecuteError<KvRejection>),
}

impl fmt::Display for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Derived::Store(error) => write!(f, "store: {error}"),
            Derived::Command(error) => write!(f, "command: {error}"),
        }
    }
}

impl StdError for Derived {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Derived::Store(error) => Some(error),
            Derived::Command(error) => Some(error),
        }
    }
}

impl From<Error> for Derived {
    fn from(error: Error) -> Derived {
        Derived::Store(error)
    }
}

impl From<ExecuteError<KvRejection>> for Derived {
    fn from(error: ExecuteError<KvRejection>) -> Derived {
        Derived::Command(error)
    }
}

/// As `anyhow::Error`: it takes every error that can leave the thread, and is none itself.
#[derive(Debug)]
struct Anything(Box<dyn StdError + Send + Sync>);

impl<E: StdError + Send + Sync + 'static> From<E> for Anything {
    fn from(error: E) -> Anything {
        Anything(Box::new(error))
    }
}

/// Defines a program that uses `?` on every call of a store, and returns this error.
macro_rules! program {
    ($name:ident: $error:ty) => {
        fn $name(dir: &Path) -> Result<(), $error> {
            let store = Engine::<Kv>::open(dir.join("kv"))?;
            let command = KvCommand::put("", "a", "1");
            store.execute(&command)?;
            store.execute_with(&command, Durability::Os)?;
            store.submit(command)?.wait()?;
            store.insert("b", "2")?;
            store.remove("b")?;
            store.raw_table("t").insert("b", "2")?;
            store.batch([KvCommand::delete("", "b")])?;
            store.get("a")?;
            store.read(Kv::len)?;
            store.prefix("a")?.count();
            let tx = store.begin()?;
            let savepoint = tx.savepoint()?;
            tx.insert("c", "3")?;
            tx.rollback_to(savepoint)?;
            tx.submit()?.wait()?;
            let count = store.transact(|tx| {
                tx.insert("d", "4")?;
                tx.get("a")?;
                Ok::<i64, $error>(1)
            })?;
            let ticket = store.transact_submit(|tx| tx.insert("e", "5"))?;
            ticket.wait()?;
            store.view()?;
            store.checkpoint()?;
            store.close()?;

            let sums = Engine::<Sum>::open(dir.join("sum"))?;
            let sum: i64 = sums.execute(2)?;
            sums.transact(|tx| tx.execute(sum + count))?;
            assert_eq!(sums.submit(-5)?.wait()?, 0);
            sums.close()?;
            Ok(())
        }
    };
}

program!(own: Error);
program!(plain: Plain);
program!(boxed: Box<dyn StdError>);
program!(boxed_for_threads: Box<dyn StdError + Send + Sync>);
program!(anything: Anything);

#[test]
fn a_question_mark_works_on_every_call_whatever_the_program_returns() {
    let dir = tempfile::tempdir().unwrap();
    own(&dir.path().join("own")).unwrap();
    plain(&dir.path().join("plain")).unwrap();
    boxed(&dir.path().join("boxed")).unwrap();
    boxed_for_threads(&dir.path().join("threads")).unwrap();
    anything(&dir.path().join("anything")).unwrap();
    // a directory cannot be below a file
    std::fs::write(dir.path().join("file"), "").unwrap();
    let Err(Plain::Store(error)) = plain(&dir.path().join("file")) else { panic!("it opened") };
    assert_eq!(anything(&dir.path().join("file")).unwrap_err().0.to_string(), error.to_string());
}

#[test]
fn a_program_that_looks_at_rejections_keeps_them() {
    let (store, _) = open_on::<Kv>(&SimDisk::new(1), &manual()).unwrap();
    let swap = || -> Result<(), Derived> {
        store.get("a")?;
        store.raw_table("").compare_and_set("a", Some("old".into()), None)?;
        Ok(())
    };
    let error = swap().unwrap_err();
    assert!(matches!(&error, Derived::Command(ExecuteError::Rejected(KvRejection::Mismatch { actual: None }))));
    assert!(error.to_string().starts_with("command: rejected: "), "{error}");
    let in_transaction = store.transact(|tx| {
        tx.insert("b", "1")?;
        tx.insert_in("no\0table", "b", "1")?;
        Ok::<_, Derived>(())
    });
    assert!(matches!(in_transaction, Err(Derived::Command(ExecuteError::Rejected(_)))));
    let own = store.transact(|tx| {
        tx.insert("b", "1")?;
        Err::<(), _>(Plain::NoMoney)
    });
    assert!(matches!(own, Err(Plain::NoMoney)));
    // the text is kept where the type is not
    let error = Error::from(store.insert_into_nowhere().unwrap_err());
    assert!(matches!(&error, Error::Rejected { reason } if reason.contains("table")), "{error:?}");
    assert!(!error.is_retryable());
    store.close().unwrap();
    assert!(matches!(swap(), Err(Derived::Store(Error::Closed))));
}

trait Nowhere {
    fn insert_into_nowhere(&self) -> Result<(), ExecuteError<KvRejection>>;
}

impl Nowhere for Engine<Kv> {
    fn insert_into_nowhere(&self) -> Result<(), ExecuteError<KvRejection>> {
        self.raw_table("no\0table").insert("b", "1").map(drop)
    }
}

#[test]
fn a_command_that_could_not_be_tried_is_still_the_callers() {
    let disk = SimDisk::new(1);
    let (store, _) = open_on::<Kv>(&disk, &manual()).unwrap();
    let command = KvCommand::put("", "a", "1");
    let holder = store.begin().unwrap();
    holder.execute(&command).unwrap();
    for _ in 0..2 {
        let error = store.execute(&command).unwrap_err();
        assert!(error.is_retryable(), "{error}");
        let error = store.submit(&command).unwrap_err();
        assert!(error.is_retryable() && Error::from(error).is_retryable());
    }
    holder.commit().unwrap();
    store.execute(&command).unwrap();
    store.execute(Box::new(command)).unwrap();
}

/// The public enums that programs may match without a wildcard, and the structs that they may build
/// by their fields.
const COMPLETE: [&str; 10] = [
    // a command is either answered by the machine or not
    "ExecuteError",
    // the implementor of a machine reasons about all of a footprint
    "Access",
    "Extent",
    "Claim",
    // the implementor of a storage answers all that is asked of it
    "OpenMode",
    "Create",
    "LockMode",
    "WritePath",
    // the caller builds it
    "KilledStore",
    "Machine",
];

#[test]
fn public_enums_and_structs_can_grow() {
    fn visit(folder: &Path, found: &mut Vec<String>) {
        for entry in folder.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                visit(&entry, found);
            } else if !entry.ends_with("fuzzing.rs") {
                let text = std::fs::read_to_string(&entry).unwrap();
                let lines: Vec<&str> = text.lines().collect();
                for (at, line) in lines.iter().enumerate() {
                    let is_struct = line.starts_with("pub struct ");
                    let Some(rest) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")) else {
                        continue;
                    };
                    let body = lines[at + 1..].iter().take_while(|line| **line != "}");
                    let is_open =
                        line.ends_with('{') && (!is_struct || body.clone().any(|line| line.starts_with("    pub ")));
                    let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
                    if is_open && !attributes.clone().any(|line| *line == "#[non_exhaustive]") {
                        found.push(rest.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned());
                    }
                }
            }
        }
    }
    let mut found = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let unexpected: Vec<_> = found.iter().filter(|name| !COMPLETE.contains(&&***name)).collect();
    assert!(unexpected.is_empty(), "these cannot grow without breaking programs: {unexpected:?}");
    assert!(found.iter().any(|name| name == "Extent"), "{found:?}");
}
