//! PUT: what clients bring. A folder is made; a small file comes as a whole (`whole`); of any other file this
//! end asks for what it has not, as a client does.

use bytes::Bytes;
use tokio::time::Instant;

use super::{Connection, End};
use crate::codec::v2::{Form, Put, RequestId, ServerFrame};
use crate::names::FileName;
use crate::rights::Verb;
use crate::tree::Root;

mod asked;
mod keeping;
mod whole;

pub(super) use asked::Puts;
pub(super) use keeping::Kept;
pub(super) use whole::Wholes;

/// Bytes that stand behind the head of a frame and are still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Following {
    pub(super) of: Of,
    pub(super) left: u64,
}

/// What bytes belong to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// A file that is put as a whole.
    Whole(RequestId),
    /// A file that this end has asked for.
    Asked(Stretch),
    /// Nobody wants them any more.
    Nobody,
}

/// Bytes that follow of what was asked for with one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// The request of this end.
    ask: RequestId,
    block: u64,
    /// Where the last of them ends.
    end: u64,
    /// They end the block.
    ends_block: bool,
}

impl Connection<'_> {
    pub(super) fn hear_put(&mut self, request: RequestId, put: Put) -> Result<(), End> {
        self.check_whole()?;
        self.responder.claim(request)?;
        self.taking.rank(Some(put.priority));
        // Its bytes are on their way, whatever is said of it.
        self.expect_whole(request, &put);
        let Some(permit) = self.permit(request, Verb::Put, &put.name) else { return Ok(()) };
        match put.form {
            Form::Folder => self.put_folder(request, permit, put.file.mode),
            Form::Whole => self.put_whole(request, permit, &put),
            Form::Asked => self.put_asked(request, permit, put),
        }
        Ok(())
    }

    /// Tells that a file is stored, and under which name if that is not the one that was asked for.
    pub(super) fn tell_stored(&mut self, request: RequestId, root: Root, given: Option<&FileName>) {
        self.tell(&match given {
            Some(name) => ServerFrame::Stored(request, root, Bytes::copy_from_slice(name.as_bytes())),
            None => ServerFrame::End(request, Some(root)),
        });
    }

    /// Takes bytes that stand behind the head of a frame.
    pub(super) fn take_bytes(&mut self, of: Of, bytes: Bytes, left: u64) {
        match of {
            Of::Whole(request) => self.take_whole(request, &bytes),
            Of::Asked(stretch) => self.take_asked(&stretch, bytes, left),
            Of::Nobody => {}
        }
    }

    /// Gives a request of this edge up; `false` if it has none of this number.
    pub(super) fn give_up(&mut self, request: RequestId) -> bool {
        // Something that is changed already is changed; the client hears how it ended.
        self.changing.contains(&request)
            || self.give_up_push(request)
            || self.give_up_put(request)
            || self.give_up_whole(request)
            || self.give_up_control(request)
    }

    /// Whether there is room for more of what the client says.
    pub(super) fn may_hear(&self) -> bool {
        self.may_change() && self.wholes.has_room() && self.has_room_for_arrivals() && self.has_room()
    }

    /// Whether what comes is mostly bytes of files.
    pub(super) fn takes_files(&self) -> bool {
        self.following.is_some() || self.wholes.lack_bytes() || !self.puts.is_empty()
    }

    /// Whether files of others go first: then what this client brings is left in its socket for a moment.
    pub(super) fn must_wait(&self) -> bool {
        self.takes_files() && self.taking.may_now(1) == 0
    }

    /// Whether something is due that only the client can bring.
    pub(super) fn lacks_input(&self) -> bool {
        self.following.is_some() || self.wholes.lack_bytes() || self.puts.lack_input()
    }

    /// Whether what has come is heard, and what it brought is written.
    pub(super) fn has_taken_all(&self) -> bool {
        self.may_hear() && !self.puts.is_at_work()
    }

    /// Until when something has to come of what the client owes; none if it is not the client that is waited for.
    pub(super) fn demanded(&mut self) -> Option<Instant> {
        if !self.lacks_input() || !self.may_hear() || self.is_held {
            self.demanded = None;
            return None;
        }
        let (since, _) = *self.demanded.get_or_insert_with(|| (Instant::now(), self.came));
        Some(since + self.context.settings.idle_timeout)
    }

    /// Whether enough has come, if it is time to ask.
    pub(super) fn demand(&mut self) -> Result<(), End> {
        let (idle_timeout, rate_min) = (self.context.settings.idle_timeout, self.context.settings.rate_min);
        let now = Instant::now();
        let Some((since, before)) = self.demanded.filter(|(since, _)| *since + idle_timeout <= now) else {
            return Ok(());
        };
        self.demanded = None;
        if self.puts.may_compute(now) {
            return Ok(());
        }
        let came = u128::from(self.came - before);
        if came == 0 {
            return Err(End::Idle(idle_timeout));
        }
        let due = u128::from(rate_min) * (now - since).as_millis() / 1000;
        if came < due { Err(End::Slow(rate_min)) } else { Ok(()) }
    }

    /// Whether nothing is being put, removed or moved, and nothing is asked of the server about itself.
    pub(super) fn changes_nothing(&self) -> bool {
        self.changing.is_empty()
            && self.wholes.is_empty()
            && self.puts.is_empty()
            && self.controls.is_empty()
            && self.pushing.is_empty(self.input_ended)
    }
}
