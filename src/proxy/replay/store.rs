//! The storage of a kept body: memory first, then an unnamed temporary file. File I/O runs on blocking threads.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::limits::{NotReplayable, ReplayLimits};
use crate::mutex::lock;

/// The kept bytes.
#[derive(Debug)]
pub(super) struct KeptBytes {
    limits: ReplayLimits,
    memory: Vec<u8>,
    file: Option<Arc<Mutex<File>>>,
    /// Bytes in the file, including those being written.
    filed: u64,
    writing: Option<JoinHandle<io::Result<Arc<Mutex<File>>>>>,
    /// Why the bytes were dropped.
    pub(super) failure: Option<NotReplayable>,
}

/// Bytes to read back at a time.
const PIECE: u64 = 64 * 1024;

impl KeptBytes {
    pub(super) fn new(limits: ReplayLimits) -> Self {
        Self { limits, memory: Vec::new(), file: None, filed: 0, writing: None, failure: None }
    }

    /// Drops the bytes permanently; keeps the first reason.
    pub(super) fn give_up(&mut self, failure: NotReplayable) {
        self.memory = Vec::new();
        self.file = None;
        self.writing = None;
        self.failure.get_or_insert(failure);
    }

    /// Keeps `data`; starts to write what does not fit in memory.
    pub(super) fn add(&mut self, data: &Bytes) {
        if self.failure.is_some() {
            return;
        }
        let near = data.len().min(self.limits.memory - self.memory.len());
        self.memory.extend_from_slice(&data[..near]);
        let far = data.slice(near..);
        if far.is_empty() {
            return;
        }
        let offset = self.filed;
        self.filed += far.len() as u64;
        if self.filed > self.limits.file {
            return self.give_up(NotReplayable::TooLarge { limit: self.limits.total() });
        }
        let file = self.file.take();
        let directory = self.limits.directory.clone();
        self.writing = Some(spawn_blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(Mutex::new(tempfile::tempfile_in(directory)?)),
            };
            with(&file, offset, |file| file.write_all(&far))?;
            Ok(file)
        }));
    }

    /// Waits for the write in progress. There is at most one, so that a slow disk slows the sender.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(()) };
        let written = ready!(Pin::new(writing).poll(cx));
        self.writing = None;
        match written.map_err(io::Error::other).flatten() {
            Ok(file) => self.file = Some(file),
            Err(error) => self.give_up(NotReplayable::Storage(error.to_string())),
        }
        Poll::Ready(())
    }

    /// Reads kept bytes from `position`, which must be before the end.
    pub(super) fn poll_read(
        &mut self,
        position: u64,
        reading: &mut Option<JoinHandle<io::Result<Bytes>>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        let near =
            usize::try_from(position).ok().and_then(|start| self.memory.get(start..)).unwrap_or_default();
        if !near.is_empty() {
            return Poll::Ready(Ok(Bytes::copy_from_slice(&near[..near.len().min(PIECE as usize)])));
        }
        ready!(self.poll_written(cx));
        let Some(file) = &self.file else {
            let reason = self
                .failure
                .as_ref()
                .map_or_else(|| "the kept body was dropped".to_owned(), ToString::to_string);
            return Poll::Ready(Err(io::Error::other(reason)));
        };
        let offset = position - self.memory.len() as u64;
        let job = reading.get_or_insert_with(|| {
            let (file, size) = (Arc::clone(file), PIECE.min(self.filed - offset));
            spawn_blocking(move || {
                let mut piece = vec![0; size as usize];
                with(&file, offset, |file| file.read_exact(&mut piece))?;
                Ok(piece.into())
            })
        });
        let piece = ready!(Pin::new(job).poll(cx));
        *reading = None;
        Poll::Ready(piece.map_err(io::Error::other).flatten())
    }
}

/// Seeks to `offset` and runs `work`.
fn with<T>(file: &Mutex<File>, offset: u64, work: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let mut file = lock(file);
    file.seek(SeekFrom::Start(offset))?;
    work(&mut file)
}
