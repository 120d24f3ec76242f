//! System calls that fail, are cut short, or kill the process, injected with strace.

use crate::child::{Running, command, started, tell};
use crate::common::{Cmd, Rng, Stacks, scale, skipped, state};
use crate::workload::{Ended, LOSERS, Model, WITNESS, open_with, options, perform};
use seawal::io::WritePath;
use seawal::machine::{Access, Footprint};
use seawal::wal::LogStep;
use seawal::{Background, Engine, Error, ReadLevel, Step};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The number of transactions in the store before a fault is injected.
const BEFORE: u32 = 40;
/// The number of transactions that the child attempts.
const ATTEMPTS: u64 = 24;

/// System calls, and the faults injected into one of them, or into all from one on.
const INJECTIONS: &[(&str, &[&str])] = &[
    ("fdatasync", &["error=EIO", "error=ENOSPC", "error=EINTR", "signal=SIGKILL"]),
    ("fsync", &["error=EIO", "error=ENOSPC", "error=EDQUOT", "error=EINTR", "signal=SIGKILL"]),
    ("pwrite64", &["error=EIO", "error=ENOSPC", "error=EDQUOT", "error=EINTR", "retval=0", "signal=SIGKILL"]),
    ("fallocate", &["error=ENOSPC", "error=EDQUOT", "error=EOPNOTSUPP", "error=EINTR"]),
    ("renameat", &["error=EIO", "error=ENOSPC", "signal=SIGKILL"]),
    ("openat", &["error=EIO", "error=EMFILE", "error=ENOSPC"]),
    ("unlinkat", &["error=EIO", "signal=SIGKILL"]),
    ("pread64", &["error=EIO", "error=EINTR"]),
    ("ftruncate", &["error=EIO"]),
    ("getdents64", &["error=EIO"]),
    ("fadvise64", &["error=EIO"]),
    ("flock", &["error=EINTR", "error=ENOLCK"]),
    ("fstat", &["error=EIO"]),
];

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Full { .. } => "full",
        Error::Io { .. } => "io",
        Error::Latched { .. } => "latched",
        Error::Delayed { .. } => "delayed",
        other => panic!("not an answer to a failure of the system: {other:?}"),
    }
}

fn open(dir: &Path, path: WritePath) -> Result<Engine<Stacks>, Error> {
    open_with(&options().background(Background::Manual).checkpoint_log_bytes(96 << 10), dir, path)
}

/// Commits one transaction after another and reports each result. Once one reports a latch, all
/// later ones must.
pub(crate) fn child_serial() {
    let (dir, numbers) = started();
    let [first, buffered] = *numbers else { panic!() };
    // strace counts calls per thread; these calls come after those that load the program, which are
    // not to be hit
    for _ in 0..40 {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        rustix::fs::fstat(&file).unwrap();
        rustix::io::pread(&file, &mut [0; 8], 0).unwrap();
    }
    tell("opening");
    let engine = match open(&dir, if buffered == 1 { WritePath::BufferedSync } else { WritePath::Direct }) {
        Ok(engine) => engine,
        Err(error) => return tell(&format!("refused {}", kind(&error))),
    };
    tell("open");
    let witness = || {
        let read =
            engine.read_within(&Footprint::key(Access::Shared, &[WITNESS]), ReadLevel::Hardened, |s| s.at(WITNESS));
        read.expect("what has hardened stays readable") == [1]
    };
    let mut witnessed = witness() || engine.execute(Cmd::push(WITNESS, 1)).is_ok();
    if !witnessed {
        // nothing durable can be read yet, and the log may be latched
        witnessed = engine.execute(Cmd::push(WITNESS, 1)).is_ok();
    }
    if !witnessed {
        return tell("without a witness");
    }
    tell("witness");
    let mut latched = 0;
    for n in (first..first + ATTEMPTS).map(|n| n as u32) {
        let answer = perform(&engine, 0, n).and_then(|ended| match ended {
            Ended::Acknowledged => Ok(()),
            Ended::Promised(wait) => {
                let _ = engine.step(Step::Log(LogStep::Flush));
                wait()
            }
        });
        match &answer {
            Ok(()) => tell(&format!("done {n}")),
            Err(error) if error.is_latched() => tell(&format!("doubt {n}")),
            Err(Error::Delayed { .. }) => tell(&format!("delayed {n}")),
            Err(error) => tell(&format!("not {n} {}", kind(error))),
        }
        let step = engine.step(Step::Log(LogStep::ALL[n as usize % 4]));
        let checkpoint = if n % 8 == 3 { engine.checkpoint() } else { Ok(()) };
        for result in [&answer, &step.map(drop), &checkpoint] {
            let says_so = result.as_ref().is_err_and(|error| kind(error) == "latched");
            assert!(latched == 0 || says_so || result.is_ok() && !std::ptr::eq(result, &answer), "{n}: {result:?}");
            latched += u64::from(says_so);
        }
        if latched > 0 {
            assert!(engine.begin().is_err_and(|error| error.is_latched()));
            assert!(engine.sync().is_err_and(|error| error.is_latched()));
        }
        assert!(witness());
        if latched > 6 {
            break;
        }
    }
    match engine.close() {
        Ok(()) => tell("closed"),
        Err(error) => tell(&format!("unclosed {}", kind(&error))),
    }
}

/// The reason why nothing can be injected on this machine, if there is one.
fn impossible() -> Option<&'static str> {
    let run = |arguments: &[&str]| {
        let command = Command::new("strace").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        command.map(|status| status.success())
    };
    match run(&["-V"]) {
        Ok(true) => {}
        _ => return Some("strace is not installed"),
    }
    match run(&["-f", "-qq", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=1", "true"]) {
        Ok(true) => None,
        _ => Some("strace may not trace here, or is too old"),
    }
}

/// A store that a process left without a close, with losers to undo, at one point of its history.
struct Template {
    dir: tempfile::TempDir,
    model: Model,
}

impl Template {
    fn new() -> Template {
        let dir = tempfile::tempdir().unwrap();
        let live = tempfile::tempdir().unwrap();
        let engine = open(live.path(), WritePath::Direct).unwrap();
        engine.execute(Cmd::push(WITNESS, 1)).unwrap();
        let mut model = Model::new(0);
        for n in 0..BEFORE {
            if let Ended::Promised(wait) = perform(&engine, 0, n).unwrap() {
                wait().unwrap();
            }
            model.apply(n);
            if n == BEFORE / 2 {
                engine.checkpoint().unwrap();
            }
        }
        let tx = engine.begin().unwrap();
        for n in 0..8 {
            tx.execute(Cmd::Push { key: LOSERS, value: n, pad: 300 }).unwrap();
        }
        engine.sync().unwrap();
        copy_files(live.path(), dir.path());
        drop(tx);
        Template { dir, model }
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The store that a child begins with, and how it writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Scene {
    existing: bool,
    buffered: bool,
}

const SCENES: [Scene; 4] = [
    Scene { existing: true, buffered: false },
    Scene { existing: true, buffered: true },
    Scene { existing: false, buffered: false },
    Scene { existing: false, buffered: true },
];

/// What a child reported, and its trace.
struct Heard {
    dir: tempfile::TempDir,
    lines: Vec<String>,
    trace: String,
    first: u32,
}

impl Heard {
    fn says(&self, start: &str) -> bool {
        self.lines.iter().any(|line| line.starts_with(start))
    }

    fn numbers(&self, word: &str) -> Vec<u32> {
        let rest = self.lines.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        rest.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect()
    }
}

fn run(template: &Template, scene: Scene, strace: &[&str]) -> Heard {
    let dir = tempfile::tempdir().unwrap();
    if scene.existing {
        copy_files(template.dir.path(), dir.path());
    }
    let first = if scene.existing { BEFORE } else { 0 };
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut wrapper = vec!["strace", "-f", "-qq", "-s", "40", "-o", log.path().to_str().unwrap()];
    wrapper.extend_from_slice(strace);
    let numbers = [u64::from(first), u64::from(scene.buffered)];
    let (status, lines) = Running::start(command(&wrapper, "serial", dir.path(), &numbers)).finish();
    let trace = std::fs::read_to_string(log.path()).unwrap();
    let killed = strace.iter().any(|argument| argument.contains("SIGKILL")) && trace.contains("+++ killed by SIGKILL");
    assert!(status.success() || killed, "{scene:?} {strace:?}: {status}\n{lines:?}\n{trace}");
    Heard { dir, lines, trace, first }
}

/// Reopens without faults. All acknowledged transactions are there in order, and nothing else
/// except those in doubt.
fn check(template: &Template, scene: Scene, heard: &Heard) {
    let engine = options().open::<Stacks>(heard.dir.path()).unwrap_or_else(|e| panic!("{e:?}\n{:?}", heard.lines));
    let found = state(&engine);
    let (done, doubt, not) = (heard.numbers("done"), heard.numbers("doubt"), heard.numbers("not"));
    let mut may = [done.clone(), heard.numbers("delayed")].concat();
    may.sort_unstable();
    // what was delayed is durable with the next one that was acknowledged
    let certain = done.last().and_then(|last| may.iter().position(|n| n == last)).map_or(0, |at| at + 1);
    may.extend(doubt);
    // one more transaction if the process was killed during it
    let told = may.iter().chain(&not).max().map_or(heard.first, |last| last + 1);
    may.push(told);
    let mut model = if scene.existing { template.model.clone() } else { Model::new(0) };
    model.catch_up(&found, &may, certain);
    assert!(found.at(LOSERS).is_empty());
    if heard.says("witness") || scene.existing {
        assert_eq!(found.at(WITNESS), [1]);
    }
    engine.execute(Cmd::push(LOSERS, 1)).unwrap();
    engine.close().unwrap();
}

/// The calls of one kind that a thread made, in order.
fn calls<'a>(trace: &'a str, call: &str, thread: &str) -> Vec<&'a str> {
    let lines = trace.lines().filter_map(|line| line.strip_prefix(thread)).map(str::trim_start);
    lines.filter(|line| line.strip_prefix(call).is_some_and(|rest| rest.starts_with('('))).collect()
}

/// The thread that uses the store.
fn worker(trace: &str) -> &str {
    trace.lines().find(|line| line.contains("@opening")).unwrap().split(' ').next().unwrap()
}

/// The worker's calls of one kind from the open of the store on, numbered as strace does.
fn targets(trace: &str, call: &str) -> std::ops::RangeInclusive<u64> {
    let thread = worker(trace);
    let (before, _) = trace.split_once("@opening").unwrap();
    let (before, all) = (calls(before, call, thread).len(), calls(trace, call, thread).len());
    let loading = calls(trace, call, trace.split(' ').next().unwrap()).len();
    assert!(
        loading <= before,
        "{call}: {loading} calls of the program's first thread, {before} of the worker:\n{trace}"
    );
    before as u64 + 1..=all as u64
}

fn baselines(template: &Template) -> BTreeMap<Scene, Heard> {
    let all: Vec<&str> = INJECTIONS.iter().map(|(call, _)| *call).chain(["write"]).collect();
    let filter = format!("trace={}", all.join(","));
    let baseline = |scene| {
        let heard = run(template, scene, &["-e", &filter]);
        assert_eq!(heard.numbers("done").len() as u64, ATTEMPTS, "{:?}", heard.lines);
        assert!(heard.says("closed"));
        check(template, scene, &heard);
        (scene, heard)
    };
    SCENES.into_iter().map(baseline).collect()
}

#[test]
fn system_calls_that_fail_or_kill_are_answered_truly_and_lose_nothing_acknowledged() {
    if let Some(why) = impossible() {
        return skipped(why);
    }
    let template = Template::new();
    let baselines = baselines(&template);
    let mut jobs = Vec::new();
    let mut rng = Rng::new(std::process::id().into());
    for (call, actions) in INJECTIONS {
        for action in *actions {
            for round in 0..(4 * scale()).max(SCENES.len() as u64) {
                let scene = SCENES[round as usize % SCENES.len()];
                let targets = targets(&baselines[&scene].trace, call);
                if !targets.is_empty() {
                    // no kernel interrupts a call forever
                    let once = *action == "error=EINTR" && *call != "fdatasync" && *call != "fsync" || rng.one_in(2);
                    let at = targets.start() + rng.below(targets.end() + 1 - targets.start());
                    jobs.push((*call, *action, scene, format!("{at}{}", if once { "" } else { "+" })));
                }
            }
        }
    }
    let outcomes = Mutex::new(BTreeMap::<&str, usize>::new());
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((call, action, scene, when)) = jobs.lock().unwrap().pop() else { return };
                    for outcome in inject(&template, call, action, scene, &when) {
                        *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    println!("{outcomes:?}");
    for wanted in ["injected", "refused", "latched", "went on", "killed", "checkpoint failed or close"] {
        assert!(outcomes.contains_key(wanted), "{wanted}: {outcomes:?}");
    }
}

/// Runs a child with one injected fault, and checks its reports and the store that it left.
fn inject(template: &Template, call: &str, action: &str, scene: Scene, when: &str) -> Vec<&'static str> {
    let filter = format!("trace={call},write");
    let injection = format!("inject={call}:{action}:when={when}");
    let heard = run(template, scene, &["-e", &filter, "-e", &injection]);
    let context = || format!("{injection}, {scene:?}: {:?}\n{}", heard.lines, heard.trace);
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(template, scene, &heard)));
    assert!(checked.is_ok(), "{}", context());
    let mut outcomes = Vec::new();
    let mut note = |outcome, happened| {
        if happened {
            outcomes.push(outcome);
        }
    };
    let injected = heard.trace.lines().position(|line| line.contains("(INJECTED)"));
    let killed = heard.trace.contains("+++ killed by SIGKILL");
    note("injected", injected.is_some());
    note("killed", killed);
    note("refused", heard.says("refused"));
    note("latched", heard.says("doubt"));
    note("went on", heard.says("not") && heard.says("closed"));
    note("checkpoint failed or close", heard.says("unclosed"));
    // this sync belongs to a frame or a header, and nothing may follow its failure
    if let Some(at) = injected.filter(|_| call == "fdatasync") {
        let later = heard.trace.lines().skip(at).find(|line| line.contains("write(1, \"@done"));
        assert_eq!(later, None, "{}", context());
    }
    // an interrupted call is repeated, except a sync
    if action == "error=EINTR" && !["fdatasync", "fsync"].contains(&call) {
        assert!(heard.says("closed") && !heard.says("not") && !heard.says("doubt"), "{}", context());
    }
    outcomes
}

#[test]
fn a_short_write_of_the_kernel_is_gone_on_with_where_it_stopped() {
    if let Some(why) = impossible() {
        return skipped(why);
    }
    let template = Template::new();
    let mut tried = 0;
    for scene in SCENES {
        let whole = run(&template, scene, &["-e", "trace=pwrite64,write"]);
        let writes = calls(&whole.trace, "pwrite64", worker(&whole.trace));
        // zeros over space that reads as zeros: strace can cut this write short by omitting it
        let zeros = |at: &usize| writes[*at].contains(r#""\0\0\0\0"#) && extent(writes[*at]).0 > 4096;
        for at in (0..writes.len()).filter(zeros) {
            let injection = format!("inject=pwrite64:retval=4096:when={}", at + 1);
            let heard = run(&template, scene, &["-e", "trace=pwrite64,write", "-e", &injection]);
            let writes = calls(&heard.trace, "pwrite64", worker(&heard.trace));
            assert!(writes[at].contains("= 4096 (INJECTED)"), "{}", writes[at]);
            let (length, offset) = extent(writes[at]);
            assert_eq!(extent(writes[at + 1]), (length - 4096, offset + 4096), "{}", writes[at + 1]);
            assert_eq!(heard.numbers("done").len() as u64, ATTEMPTS);
            check(&template, scene, &heard);
            tried += 1;
        }
    }
    assert!(tried > 1, "{tried}");
}

/// Length and offset of a `pwrite64`.
fn extent(line: &str) -> (u64, u64) {
    let (arguments, _) = line.rsplit_once(") = ").or_else(|| line.rsplit_once(") ")).unwrap();
    let arguments = arguments.trim_end_matches([')', ' ', '=']);
    let mut backwards = arguments.rsplit(", ");
    let offset = backwards.next().unwrap().parse().unwrap();
    (backwards.next().unwrap().parse().unwrap(), offset)
}
