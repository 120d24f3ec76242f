//! Users' code around the engine: executors with many tickets, closures that call the engine, and
//! options at their extremes.

use crate::common::{manual, open_on};
use seawal::kv::{Kv, KvCommand};
use seawal::sim::SimDisk;
use seawal::{Engine, Ticket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<T: Unpin>(ticket: &mut Ticket<T>, waker: &Waker) -> Poll<seawal::Result<T>> {
    Pin::new(ticket).poll(&mut Context::from_waker(waker))
}

/// U4: tens of thousands of tickets, polled and dropped or awaited, take time in proportion.
#[test]
fn fifty_thousand_tickets_are_polled_dropped_and_awaited_in_little_time() {
    const TICKETS: usize = 50_000;
    let (engine, _): (Engine<Kv>, _) =
        open_on(&SimDisk::new(1), &manual().segment_bytes(64 << 20).max_log_bytes(1 << 30)).unwrap();
    let submit = || engine.submit(KvCommand::put("", "key", "value")).unwrap();
    let began = Instant::now();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut dropped: Vec<_> = (0..TICKETS).map(|_| submit()).collect();
    let mut awaited: Vec<_> = (0..TICKETS).map(|_| submit()).collect();
    let pending = dropped.iter_mut().chain(&mut awaited).filter_map(|t| poll(t, &waker).is_pending().then_some(()));
    assert!(pending.count() > TICKETS, "nothing flushes them by itself");
    // an executor polls again for whatever reason
    let pending = awaited.iter_mut().filter_map(|t| poll(t, &waker).is_pending().then_some(())).count();
    drop(dropped);
    engine.sync().unwrap();
    assert_eq!(count.0.load(Ordering::SeqCst), pending, "each that is left is woken, and once");
    assert!(awaited.iter_mut().all(|ticket| matches!(poll(ticket, &waker), Poll::Ready(Ok(_)))));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
