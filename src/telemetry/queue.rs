//! The bounded queue between the tasks that log and the thread that writes. Adding a line never blocks.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::mutex::lock;

/// The most bytes that may be queued; further lines are dropped.
const MAX_QUEUED: usize = 4 << 20;
/// The overhead of a line, in bytes.
const LINE_COST: usize = 64;
/// How long the thread pauses after it has written everything. Lines that arrive meanwhile are written together,
/// because waking the thread for each costs the proxy more than the line itself. A warning or an error ends the pause.
const BATCH_PAUSE: Duration = Duration::from_millis(10);
/// From this many queued bytes on, the thread does not pause.
const BATCH_LIMIT: usize = MAX_QUEUED / 4;
/// How long to wait at exit for lines that are not written yet.
const FINISH_WITHIN: Duration = Duration::from_secs(1);
/// The pause before retrying a full terminal or pipe that is set to non-blocking.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// A handle to the log. Writing to it never blocks.
#[derive(Clone, Debug)]
pub struct Log(Arc<LogQueue>);

#[derive(Debug, Default)]
struct LogQueue {
    queue: Mutex<Queue>,
    /// Wakes the thread.
    wanted: Condvar,
    /// Wakes [`Log::finish`].
    drained: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread waits for a line and must be woken.
    is_asleep: bool,
    is_writing: bool,
    /// A line should be written at once, or the program is exiting: end the pause.
    is_urgent: bool,
    lost: u64,
}

impl Log {
    /// Starts the thread that writes to `out`. After lines were lost, `report` is called with the total as soon as a
    /// line can be written again.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_with_pause(out, report, BATCH_PAUSE)
    }

    fn start_with_pause(
        out: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
        pause: Duration,
    ) -> io::Result<Self> {
        let shared = Arc::<LogQueue>::default();
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_all(out, report, pause))?;
        Ok(Self(shared))
    }

    /// Waits until everything is written, for at most [`FINISH_WITHIN`].
    pub fn finish(&self) {
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let mut queue = self.0.lock();
        queue.is_urgent = true;
        self.0.wanted.notify_one();
        // On a timeout there is nothing more to do.
        let _ = self.0.drained.wait_timeout_while(queue, FINISH_WITHIN, is_busy);
    }

    /// `is_urgent` ends the thread's pause.
    fn push(&self, line: &[u8], is_urgent: bool) {
        let mut queue = self.0.lock();
        if queue.bytes + line.len() + LINE_COST > MAX_QUEUED {
            queue.lost += 1;
            return;
        }
        queue.bytes += line.len() + LINE_COST;
        queue.lines.push_back(line.to_vec());
        queue.is_urgent |= is_urgent || queue.bytes >= BATCH_LIMIT;
        if std::mem::take(&mut queue.is_asleep) || queue.is_urgent {
            drop(queue);
            self.0.wanted.notify_one();
        }
    }
}

impl LogQueue {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Writes lines as they arrive, until the process ends.
    fn write_all(&self, mut out: impl Write, report: impl Fn(u64), pause: Duration) {
        let (mut reported, mut is_torn) = (0, false);
        loop {
            let line = self.next(pause);
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
            if written.is_ok() && lost != reported {
                reported = lost;
                report(lost);
            }
        }
    }

    /// Waits for the next line.
    fn next(&self, pause: Duration) -> Vec<u8> {
        let mut queue = self.lock();
        if queue.is_writing && queue.lines.is_empty() {
            queue.is_writing = false;
            self.drained.notify_all();
            let rested = self.wanted.wait_timeout_while(queue, pause, |queue| !queue.is_urgent);
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

/// Writes a whole line.
///
/// # Errors
/// The number of bytes written before the failure.
fn write(out: &mut impl Write, line: &[u8]) -> Result<usize, usize> {
    let mut written = 0;
    while written < line.len() {
        match out.write(&line[written..]) {
            Ok(0) => return Err(written),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
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

/// Receives one event, which the subscriber writes in one piece.
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

    /// Waits for a verdict before each write, and passes on what was written.
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
        resting(BATCH_PAUSE)
    }

    fn resting(pause: Duration) -> (Log, Verdicts, mpsc::Receiver<Vec<u8>>, mpsc::Receiver<u64>) {
        let ((decide, verdicts), (written, seen)) = (mpsc::channel(), mpsc::channel());
        let (tell, reported) = mpsc::channel();
        let tell = move |lost| tell.send(lost).unwrap();
        let log = Log::start_with_pause(Fickle { verdicts, written }, tell, pause).unwrap();
        (log, decide, seen, reported)
    }

    #[test]
    fn a_writer_that_is_stuck_holds_nobody_up_and_what_does_not_fit_is_counted() {
        let (log, decide, seen, reported) = fickle();
        let line = vec![b'x'; 64 << 10];
        // The writer holds one line and waits; the queue fills up behind it.
        let fit = MAX_QUEUED / (line.len() + LINE_COST);
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
        assert_eq!(reported.recv().unwrap(), 7);
        // There is room again.
        log.push(b"y", false);
        decide.send(Ok(usize::MAX)).unwrap();
        assert_eq!(seen.recv().unwrap(), b"y");
    }

    #[test]
    fn a_failed_write_loses_its_line_and_the_next_one_starts_on_a_line_of_its_own() {
        let (log, decide, seen, reported) = fickle();
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
        assert_eq!(reported.recv().unwrap(), 2);
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
