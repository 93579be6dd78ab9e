//! The thread beside an epoll reactor that writes and syncs files: both may take milliseconds, and epoll has no word
//! for a file that is ready.
//!
//! One thread and one queue in order, because the journal keeps one block in flight: a second thread would only let
//! a sync start beside the write it must cover. At most [`FILE_OPERATIONS_MAX`] operations are on their way; the
//! caller keeps the rest. The thread owns a buffer from the moment it is handed over until it is taken back, so that
//! nothing is lent to the kernel across threads. Dropping waits for the operation in progress.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crossbeam_queue::ArrayQueue;

use super::readiness::Bell;
use super::{Completion, Doorbell, File, Op, Token, calls};
use crate::limits::FILE_OPERATIONS_MAX;

/// An operation on a file: what [`Op::Write`] and [`Op::Sync`] say.
#[derive(Debug)]
pub(super) enum FileOp {
    Write { file: File, token: Token, offset: u64, buffer: Vec<u8> },
    Sync { file: File, token: Token },
}

impl FileOp {
    /// The file operation in `op`, or `op` itself.
    pub(super) fn from_op(op: Op) -> Result<FileOp, Op> {
        match op {
            Op::Write { file, token, offset, buffer } => Ok(FileOp::Write { file, token, offset, buffer }),
            Op::Sync { file, token } => Ok(FileOp::Sync { file, token }),
            other => Err(other),
        }
    }

    fn perform(self) -> Completion {
        match self {
            FileOp::Write { file, token, offset, buffer } => {
                let result = calls::write_all_at(file, &buffer, offset);
                Completion::Written { token, buffer, result }
            }
            FileOp::Sync { file, token } => Completion::Synced { token, result: calls::sync_data(file) },
        }
    }
}

/// See the module documentation.
pub(super) struct FileThread {
    /// `None` only while dropping: its end tells the thread to finish.
    submissions: Option<SyncSender<FileOp>>,
    completions: Arc<ArrayQueue<Completion>>,
    in_flight: usize,
    thread: Option<JoinHandle<()>>,
}

impl FileThread {
    pub(super) fn start(bell: Arc<Bell>) -> io::Result<FileThread> {
        let (submissions, queue) = sync_channel(FILE_OPERATIONS_MAX);
        let completions = Arc::new(ArrayQueue::new(FILE_OPERATIONS_MAX));
        let done = Arc::clone(&completions);
        let thread = std::thread::Builder::new()
            .name("file-io".into())
            .stack_size(64 << 10)
            .spawn(move || perform_all(&queue, &done, &bell))?;
        Ok(FileThread { submissions: Some(submissions), completions, in_flight: 0, thread: Some(thread) })
    }

    /// Whether [`FileThread::submit`] may be called.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < FILE_OPERATIONS_MAX
    }

    pub(super) fn submit(&mut self, op: FileOp) {
        assert!(self.has_room(), "more file operations than agreed");
        let sender = self.submissions.as_ref().expect("the sender lives until drop");
        // The channel has room because no more are in flight than it holds, and its other end lives until we drop.
        sender.try_send(op).expect("the file thread runs and has room");
        self.in_flight += 1;
    }

    /// Append what has been completed; answers whether that was anything.
    pub(super) fn collect(&mut self, out: &mut Vec<Completion>) -> bool {
        if self.in_flight == 0 {
            return false;
        }
        let before = out.len();
        while let Some(completion) = self.completions.pop() {
            self.in_flight -= 1;
            out.push(completion);
        }
        out.len() > before
    }
}

impl Drop for FileThread {
    fn drop(&mut self) {
        drop(self.submissions.take());
        if let Some(thread) = self.thread.take() {
            // It panics only on a broken invariant, which has been reported by then.
            let _panicked = thread.join();
        }
    }
}

fn perform_all(queue: &Receiver<FileOp>, done: &ArrayQueue<Completion>, bell: &Bell) {
    while let Ok(op) = queue.recv() {
        done.push(op.perform()).expect("room for as many completions as operations in flight");
        bell.ring();
    }
}
