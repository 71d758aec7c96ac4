//! The bounded queue between the tasks that log and the thread that writes. Adding a line never blocks.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::mutex::lock;

/// The overhead of a line, in bytes.
const LINE_COST: usize = size_of::<usize>();
/// The most bytes of whole lines to write at once. Linux writes as many to a pipe in one piece, so that the lines of
/// several processes do not mix.
const MAX_WRITE: usize = 4096;
/// The largest buffer to keep for later lines.
const MAX_SPARE: usize = 64 << 10;
/// How long the thread pauses after it has written everything. Lines that arrive meanwhile are written together,
/// because waking the thread for each costs the proxy more than the line itself. A warning or an error ends the pause.
const BATCH_PAUSE: Duration = Duration::from_millis(10);
/// How long to wait at exit for lines that are not written yet. This and the two pauses are fixed: the log is best effort,
/// and no configuration is read before some of the commands that log.
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
    lines: Lines,
    /// The cost of the lines that are queued or being written.
    bytes: usize,
    /// The most that `bytes` may be; further lines are dropped.
    limit: usize,
    /// The thread waits for a line and must be woken.
    is_asleep: bool,
    is_writing: bool,
    /// A line should be written at once, or the program is exiting: end the pause.
    is_urgent: bool,
    lost: u64,
}

/// Lines in one buffer.
#[derive(Debug, Default)]
struct Lines {
    text: Vec<u8>,
    /// The end of each line.
    ends: Vec<usize>,
}

impl Lines {
    fn push(&mut self, line: &[u8]) {
        self.text.extend_from_slice(line);
        self.ends.push(self.text.len());
    }

    fn clear(&mut self) {
        if self.text.capacity() > MAX_SPARE {
            *self = Self::default();
        }
        self.text.clear();
        self.ends.clear();
    }
}

impl Log {
    /// Starts the thread that writes to `out`, with a queue of at most `limit` bytes. After lines were lost, `report` is
    /// called with the total as soon as a line can be written again.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        limit: usize,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_with_pause(out, limit, report, BATCH_PAUSE)
    }

    fn start_with_pause(
        out: impl Write + Send + 'static,
        limit: usize,
        report: impl Fn(u64) + Send + 'static,
        pause: Duration,
    ) -> io::Result<Self> {
        let queue = Mutex::new(Queue { limit, ..Queue::default() });
        let shared = Arc::new(LogQueue { queue, ..LogQueue::default() });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_all(out, report, pause))?;
        Ok(Self(shared))
    }

    /// How many lines were lost.
    pub(super) fn lost(&self) -> u64 {
        self.0.lock().lost
    }

    /// Waits until everything is written, for at most [`FINISH_WITHIN`].
    pub fn finish(&self) {
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.lines.ends.is_empty();
        let mut queue = self.0.lock();
        queue.is_urgent = true;
        self.0.wanted.notify_one();
        // On a timeout there is nothing more to do.
        let _ = self.0.drained.wait_timeout_while(queue, FINISH_WITHIN, is_busy);
    }

    /// `is_urgent` ends the thread's pause.
    fn push(&self, line: &[u8], is_urgent: bool) {
        let mut queue = self.0.lock();
        if queue.bytes + line.len() + LINE_COST > queue.limit {
            queue.lost += 1;
            return;
        }
        queue.bytes += line.len() + LINE_COST;
        queue.lines.push(line);
        // Nor does the thread pause while a quarter of the queue is full.
        queue.is_urgent |= is_urgent || queue.bytes >= queue.limit / 4;
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
        let (mut lines, mut reported, mut is_torn) = (Lines::default(), 0, false);
        loop {
            self.next(&mut lines, pause);
            let (mut ends, mut begin) = (lines.ends.as_slice(), 0);
            while !ends.is_empty() {
                let (batch, rest) = ends.split_at(batch_len(ends, begin));
                let end = batch.last().copied().unwrap_or(begin);
                let separated = if is_torn { write(&mut out, b"\n").map_err(|_| 0) } else { Ok(0) };
                let written = separated.and_then(|_| write(&mut out, &lines.text[begin..end]));
                let reached = begin + written.unwrap_or_else(|count| count);
                // A failure before the first byte leaves the output as it was.
                is_torn = reached != begin && !batch.contains(&reached) || is_torn && reached == begin;
                let lost = {
                    let mut queue = self.lock();
                    queue.bytes -= end - begin + batch.len() * LINE_COST;
                    queue.lost += batch.iter().filter(|end| **end > reached).count() as u64;
                    queue.lost
                };
                if written.is_ok() && lost != reported {
                    reported = lost;
                    report(lost);
                }
                (ends, begin) = (rest, end);
            }
            lines.clear();
        }
    }

    /// Waits for lines, and exchanges `lines`, which is empty, for all that are queued.
    fn next(&self, lines: &mut Lines, pause: Duration) {
        let mut queue = self.lock();
        if queue.is_writing && queue.lines.ends.is_empty() {
            queue.is_writing = false;
            self.drained.notify_all();
            let rested = self.wanted.wait_timeout_while(queue, pause, |queue| !queue.is_urgent);
            queue = rested.unwrap_or_else(PoisonError::into_inner).0;
            queue.is_urgent = false;
        }
        while queue.lines.ends.is_empty() {
            queue.is_asleep = true;
            queue = self.wanted.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        (queue.is_asleep, queue.is_writing) = (false, true);
        std::mem::swap(&mut queue.lines, lines);
    }
}

/// How many lines that begin at `begin` and end at `ends` to write at once.
fn batch_len(ends: &[usize], begin: usize) -> usize {
    ends.iter().take_while(|end| **end - begin <= MAX_WRITE).count().max(1)
}

/// Writes all of `line`.
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

    const MAX_QUEUED: usize = 4 << 20;
    /// A test whose line never arrives fails after this.
    const PATIENCE: Duration = Duration::from_secs(20);

    type Verdicts = mpsc::Sender<io::Result<usize>>;

    fn fickle() -> (Log, Verdicts, mpsc::Receiver<Vec<u8>>, mpsc::Receiver<u64>) {
        resting(BATCH_PAUSE)
    }

    fn resting(pause: Duration) -> (Log, Verdicts, mpsc::Receiver<Vec<u8>>, mpsc::Receiver<u64>) {
        let ((decide, verdicts), (written, seen)) = (mpsc::channel(), mpsc::channel());
        let (tell, reported) = mpsc::channel();
        let tell = move |lost| tell.send(lost).unwrap();
        let log = Log::start_with_pause(Fickle { verdicts, written }, MAX_QUEUED, tell, pause).unwrap();
        (log, decide, seen, reported)
    }

    #[test]
    fn a_stuck_writer_delays_no_task_and_lines_that_do_not_fit_are_counted() {
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
            assert_eq!(seen.recv_timeout(PATIENCE).unwrap().len(), line.len());
        }
        assert_eq!(reported.recv_timeout(PATIENCE).unwrap(), 7);
        // There is room again.
        log.push(b"y", false);
        decide.send(Ok(usize::MAX)).unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"y");
    }

    #[test]
    fn a_failed_write_loses_its_line_and_the_next_one_starts_on_a_line_of_its_own() {
        let (log, decide, seen, reported) = fickle();
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        log.push(b"first\n", false);
        decide.send(full()).unwrap();
        log.finish();
        log.push(b"second\n", false);
        decide.send(Ok(3)).unwrap();
        decide.send(full()).unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"sec");
        log.push(b"third\n", false);
        for _ in 0..2 {
            decide.send(Ok(usize::MAX)).unwrap();
        }
        assert_eq!(
            (seen.recv_timeout(PATIENCE).unwrap(), seen.recv_timeout(PATIENCE).unwrap()),
            (b"\n".to_vec(), b"third\n".to_vec())
        );
        assert_eq!(reported.recv_timeout(PATIENCE).unwrap(), 2);
    }

    #[test]
    fn a_warning_and_the_end_of_the_program_do_not_wait_for_the_rest() {
        let (log, decide, seen, _told) = resting(Duration::from_secs(3600));
        for _ in 0..5 {
            decide.send(Ok(usize::MAX)).unwrap();
        }
        log.push(b"first", false);
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"first");
        log.push(b"while it rests", false);
        log.push(b"warning", true);
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"while it restswarning");
        log.push(b"last", false);
        log.finish();
        assert_eq!(seen.try_recv().unwrap(), b"last");
    }

    #[test]
    fn lines_that_arrive_together_are_written_together_and_lost_one_by_one() {
        let (log, decide, seen, reported) = resting(Duration::from_secs(3600));
        let long = vec![b'x'; MAX_WRITE - 4];
        decide.send(Ok(usize::MAX)).unwrap();
        log.push(b"first\n", false);
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"first\n");
        // While the thread pauses: they are written in two pieces, of which the first fails in its third line.
        for line in [b"1\n".as_slice(), b"2\n", b"three\n", b"4\n", &long] {
            log.push(line, false);
        }
        log.push(b"warning\n", true);
        decide.send(Ok(7)).unwrap();
        decide.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        for _ in 0..3 {
            decide.send(Ok(usize::MAX)).unwrap();
        }
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"1\n2\nthr");
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"\n");
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), long);
        assert_eq!(reported.recv_timeout(PATIENCE).unwrap(), 2);
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"warning\n");
        log.finish();
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
        assert_eq!(
            (seen.recv_timeout(PATIENCE).unwrap(), seen.recv_timeout(PATIENCE).unwrap()),
            (b"li".to_vec(), b"ne\n".to_vec())
        );
        log.finish();
    }
}
