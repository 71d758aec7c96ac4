//! The queue between the tasks that log and the thread that writes: bounded, and never waited for.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::mutex::lock;

/// The most that may wait to be written, in bytes; further lines are lost.
const MOST_WAITING: usize = 4 << 20;
/// What a line takes besides its text.
const LINE_COST: usize = 64;
/// How long the thread rests after it has written. It writes what comes meanwhile together: waking it for each line costs
/// the proxy more than the line itself. A warning or an error ends the rest.
const REST: Duration = Duration::from_millis(10);
/// With so many bytes waiting it goes on at once.
const MUCH_WAITING: usize = MOST_WAITING / 4;
/// How long the end of the program waits for lines that are not written yet.
const FINISH_WITHIN: Duration = Duration::from_secs(1);
/// The pause before another attempt on a terminal or pipe that somebody set to non-blocking and that is full.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// A handle on the log. Lines go in without waiting.
#[derive(Clone, Debug)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// The thread waits for it.
    wanted: Condvar,
    /// Who ends the program waits for it.
    drained: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread waits for a line, and must be woken.
    is_asleep: bool,
    is_writing: bool,
    /// A line should be written at once, or the program is ending: no rest.
    is_urgent: bool,
    lost: u64,
}

impl Log {
    /// Starts the thread that writes to `out`. `report` is told how many lines were lost in all, whenever a line can be
    /// written again after some were lost.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_resting(out, report, REST)
    }

    fn start_resting(
        out: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
        rest: Duration,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_all(out, report, rest))?;
        Ok(Self(shared))
    }

    /// Waits until everything is written, but not for a reader that is stuck.
    pub fn finish(&self) {
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let mut queue = self.0.lock();
        queue.is_urgent = true;
        self.0.wanted.notify_one();
        // Either way there is nothing more to wait for.
        let _ = self.0.drained.wait_timeout_while(queue, FINISH_WITHIN, is_busy);
    }

    /// `is_urgent` ends the thread's rest.
    fn push(&self, line: &[u8], is_urgent: bool) {
        let mut queue = self.0.lock();
        if queue.bytes + line.len() + LINE_COST > MOST_WAITING {
            queue.lost += 1;
            return;
        }
        queue.bytes += line.len() + LINE_COST;
        queue.lines.push_back(line.to_vec());
        queue.is_urgent |= is_urgent || queue.bytes >= MUCH_WAITING;
        if std::mem::take(&mut queue.is_asleep) || queue.is_urgent {
            drop(queue);
            self.0.wanted.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Writes lines as they come, for as long as the process lives.
    fn write_all(&self, mut out: impl Write, report: impl Fn(u64), rest: Duration) {
        let (mut told, mut is_torn) = (0, false);
        loop {
            let line = self.next(rest);
            let mut written = Ok(0);
            if is_torn {
                written = write(&mut out, b"\n");
            }
            let written = written.and_then(|_| write(&mut out, &line));
            match written {
                Ok(_) => is_torn = false,
                Err(0) => {}
                Err(_) => is_torn = true,
            }
            let lost = {
                let mut queue = self.lock();
                queue.bytes -= line.len() + LINE_COST;
                queue.lost += u64::from(written.is_err());
                queue.lost
            };
            if written.is_ok() && lost != told {
                told = lost;
                report(lost);
            }
        }
    }

    /// Waits for the next line.
    fn next(&self, rest: Duration) -> Vec<u8> {
        let mut queue = self.lock();
        if queue.is_writing && queue.lines.is_empty() {
            queue.is_writing = false;
            self.drained.notify_all();
            let rested = self.wanted.wait_timeout_while(queue, rest, |queue| !queue.is_urgent);
            queue = rested.unwrap_or_else(PoisonError::into_inner).0;
            queue.is_urgent = false;
        }
        loop {
            if let Some(line) = queue.lines.pop_front() {
                (queue.is_asleep, queue.is_writing) = (false, true);
                return line;
            }
            queue.is_asleep = true;
            queue = self.wanted.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes a whole line; where that fails, how many bytes of it went out.
fn write(out: &mut impl Write, line: &[u8]) -> Result<usize, usize> {
    let mut written = 0;
    while written < line.len() {
        match out.write(&line[written..]) {
            Ok(0) => return Err(written),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(TRY_AGAIN_AFTER),
            Err(_) => return Err(written),
        }
    }
    Ok(written)
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { log: self.clone(), is_urgent: false }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        Line { log: self.clone(), is_urgent: *event.level() <= Level::WARN }
    }
}

/// Takes one event, which the subscriber writes in one piece.
#[derive(Debug)]
pub struct Line {
    log: Log,
    is_urgent: bool,
}

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.log.push(text, self.is_urgent);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use crate::telemetry::queue::*;

    /// Asks before each write what is to become of it, and hands out what was written.
    struct Fickle {
        verdicts: mpsc::Receiver<io::Result<usize>>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Fickle {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let count = self.verdicts.recv().unwrap()?.min(text.len());
            self.written.send(text[..count].to_vec()).unwrap();
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Verdicts = mpsc::Sender<io::Result<usize>>;

    fn fickle() -> (Log, Verdicts, mpsc::Receiver<Vec<u8>>, mpsc::Receiver<u64>) {
        resting(REST)
    }

    fn resting(rest: Duration) -> (Log, Verdicts, mpsc::Receiver<Vec<u8>>, mpsc::Receiver<u64>) {
        let ((decide, verdicts), (written, seen)) = (mpsc::channel(), mpsc::channel());
        let (tell, told) = mpsc::channel();
        let tell = move |lost| tell.send(lost).unwrap();
        let log = Log::start_resting(Fickle { verdicts, written }, tell, rest).unwrap();
        (log, decide, seen, told)
    }

    #[test]
    fn a_writer_that_is_stuck_holds_nobody_up_and_what_does_not_fit_is_counted() {
        let (log, decide, seen, told) = fickle();
        let line = vec![b'x'; 64 << 10];
        // The writer has taken one line and waits; the queue fills up behind it.
        let fit = MOST_WAITING / (line.len() + LINE_COST);
        for _ in 0..fit + 7 {
            log.push(&line, false);
        }
        log.finish();
        for _ in 0..fit {
            decide.send(Ok(usize::MAX)).unwrap();
        }
        for _ in 0..fit {
            assert_eq!(seen.recv().unwrap().len(), line.len());
        }
        assert_eq!(told.recv().unwrap(), 7);
        // There is room again.
        log.push(b"y", false);
        decide.send(Ok(usize::MAX)).unwrap();
        assert_eq!(seen.recv().unwrap(), b"y");
    }

    #[test]
    fn a_failed_write_loses_its_line_and_the_next_one_starts_on_a_line_of_its_own() {
        let (log, decide, seen, told) = fickle();
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        log.push(b"first\n", false);
        decide.send(full()).unwrap();
        log.push(b"second\n", false);
        decide.send(Ok(3)).unwrap();
        decide.send(full()).unwrap();
        assert_eq!(seen.recv().unwrap(), b"sec");
        log.push(b"third\n", false);
        for _ in 0..2 {
            decide.send(Ok(usize::MAX)).unwrap();
        }
        assert_eq!((seen.recv().unwrap(), seen.recv().unwrap()), (b"\n".to_vec(), b"third\n".to_vec()));
        assert_eq!(told.recv().unwrap(), 2);
    }

    #[test]
    fn a_warning_and_the_end_of_the_program_do_not_wait_for_the_rest() {
        let (log, decide, seen, _told) = resting(Duration::from_secs(3600));
        for _ in 0..5 {
            decide.send(Ok(usize::MAX)).unwrap();
        }
        log.push(b"first", false);
        assert_eq!(seen.recv().unwrap(), b"first");
        log.push(b"while it rests", false);
        log.push(b"warning", true);
        assert_eq!(seen.recv().unwrap(), b"while it rests");
        assert_eq!(seen.recv().unwrap(), b"warning");
        log.push(b"last", false);
        log.finish();
        assert_eq!(seen.try_recv().unwrap(), b"last");
    }

    #[test]
    fn a_full_terminal_is_tried_again() {
        let (log, decide, seen, _told) = fickle();
        log.push(b"line\n", false);
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted] {
            decide.send(Err(kind.into())).unwrap();
        }
        decide.send(Ok(2)).unwrap();
        decide.send(Ok(3)).unwrap();
        assert_eq!((seen.recv().unwrap(), seen.recv().unwrap()), (b"li".to_vec(), b"ne\n".to_vec()));
        log.finish();
    }
}
