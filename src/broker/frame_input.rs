//! What a socket has read becomes frames.

use bytes::{Buf, BytesMut};

use crate::codec::frame::Cutter;

use super::broker_connection::{Connection, End, Phase};
use super::state::State;

impl State {
    /// Takes the protocol header, and then the whole frames; a part of a frame stays for the next time. Whether
    /// whole frames had to stay, too: nothing is taken of a connection that is not [read](Connection::takes_input).
    pub(super) fn take_input(&mut self, id: u64, input: &mut BytesMut) -> bool {
        let greeting =
            |connection: &Connection| connection.phase == Phase::Greeting && connection.takes_input();
        if self.connections.get(&id).is_some_and(greeting) {
            let Some(header) = input.first_chunk::<8>().copied() else {
                // another protocol need not have as many bytes
                if !input.iter().zip(b"AMQP").all(|(one, other)| one == other) {
                    self.greet(id, [0; 8]);
                }
                return false;
            };
            input.advance(header.len());
            self.greet(id, header);
        }
        while self.take_frame(id, input) {}
        self.flush_confirms(id);
        self.connections.get(&id).is_some_and(|connection| !connection.takes_input())
    }

    /// `count` bytes were read: takes what is whole. A connection may have to be cut after so many.
    pub(super) fn take_read(&mut self, id: u64, count: usize, input: &mut BytesMut) -> bool {
        let Some(left) =
            self.connections.get_mut(&id).and_then(|connection| connection.cut_after_reading.as_mut())
        else {
            return self.take_input(id, input);
        };
        let lost = (count as u64).saturating_sub(*left);
        *left = left.saturating_sub(count as u64);
        let is_over = *left == 0;
        input.truncate(input.len().saturating_sub(usize::try_from(lost).unwrap_or(usize::MAX)));
        let held_back = self.take_input(id, input);
        if is_over {
            self.end(id, End::Cut);
        }
        held_back
    }

    /// Takes the first frame, if there is a whole one.
    fn take_frame(&mut self, id: u64, input: &mut BytesMut) -> bool {
        let Some(connection) = self.connections.get(&id).filter(|connection| connection.takes_input()) else {
            return false;
        };
        // the handshake changes the limit
        let cutter = match connection.phase {
            Phase::Open => Cutter::agreed(connection.frame_max),
            _ => Cutter::provisional(),
        };
        let cut = cutter.cut_one(input);
        if let Some(fault) = cut.fault {
            self.bad_frame(id, &fault);
            return false;
        }
        let Some(frame) = cut.frames.frames().next() else { return false };
        self.frame(id, frame);
        true
    }
}
