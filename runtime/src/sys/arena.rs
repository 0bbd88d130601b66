//! The program's allocator: memory of a short life, handed out from front to back.
//!
//! A command asks for a few hundred KiB in small pieces and ends. Room for that is part of the program, at no cost until
//! it is touched. Only what was taken last is given back; what does not fit any more is the C library's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROOM: usize = 1 << 20;

/// The room, and how much of it is taken.
#[repr(C, align(4096))]
pub(crate) struct Arena {
    room: UnsafeCell<[u8; ROOM]>,
    taken: AtomicUsize,
}

// SAFETY: pieces of the room are handed out by a counter that one thread at a time can move, and no two overlap.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) const fn new() -> Self {
        Self {
            room: UnsafeCell::new([0; ROOM]),
            taken: AtomicUsize::new(0),
        }
    }

    /// Where in the room a piece is, if it is in it.
    fn place(&self, piece: *mut u8) -> Option<usize> {
        let place = piece.addr().wrapping_sub(self.room.get().addr());
        (place < ROOM).then_some(place)
    }

    /// Moves the end of what is taken; whether it was still at `from`.
    fn shift(&self, from: usize, to: usize) -> bool {
        // What was written to a piece before is seen by who gets it next.
        let moved = self
            .taken
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        moved.is_ok()
    }
}

// SAFETY: a piece begins at a multiple of its alignment (the room does so for each that a page has), ends within the room, and is
// nobody else's until it is given back. What is not in the room is the system's.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        loop {
            let taken = self.taken.load(Ordering::Relaxed);
            let start = taken.next_multiple_of(layout.align());
            if layout.align() > 4096 || layout.size() > ROOM.saturating_sub(start) {
                // SAFETY: the caller's promise is the same.
                return unsafe { System.alloc(layout) };
            }
            if self.shift(taken, start + layout.size()) {
                // SAFETY: it ends within the room.
                return unsafe { self.room.get().cast::<u8>().add(start) };
            }
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match self.place(piece) {
            Some(place) => {
                self.shift(place + layout.size(), place);
            }
            // SAFETY: the caller has it from us, and so from the system.
            None => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if let Some(place) = self.place(piece)
            && size <= ROOM - place
            && self.shift(place + layout.size(), place + size)
        {
            return piece;
        }
        // SAFETY: the caller promises that the size is good for the alignment, and that the piece is as long as `layout` says;
        // the new one is no part of it.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(piece, new, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece filled with `byte`.
    fn piece(arena: &Arena, size: usize, align: usize, byte: u8) -> (*mut u8, Layout) {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: the size is not zero, and the piece is that long.
        unsafe {
            let piece = arena.alloc(layout);
            assert!(!piece.is_null() && piece.addr().is_multiple_of(align));
            piece.write_bytes(byte, size);
            (piece, layout)
        }
    }

    fn holds(piece: *mut u8, size: usize, byte: u8) -> bool {
        // SAFETY: tests ask about pieces that are theirs.
        unsafe { std::slice::from_raw_parts(piece, size) }
            .iter()
            .all(|found| *found == byte)
    }

    #[test]
    fn pieces_are_aligned_and_do_not_overlap() {
        static ARENA: Arena = Arena::new();
        let arena = &ARENA;
        let sizes = (1..400).map(|number| (number * 7 % 61 + 1, 1 << (number % 8)));
        let pieces: Vec<_> = sizes
            .enumerate()
            .map(|(index, (size, align))| (index as u8, size, piece(arena, size, align, index as u8).0))
            .collect();
        for (byte, size, piece) in pieces {
            assert!(arena.place(piece).is_some() && holds(piece, size, byte));
        }
    }

    #[test]
    fn what_was_taken_last_is_given_back_and_grows_where_it_is() {
        static ARENA: Arena = Arena::new();
        let arena = &ARENA;
        let (first, layout) = piece(arena, 100, 8, 1);
        // SAFETY: each piece is given back or changed with the layout that it has.
        unsafe {
            let grown = arena.realloc(first, layout, 5000);
            assert_eq!(grown, first);
            let (second, short) = piece(arena, 16, 8, 2);
            let layout = Layout::from_size_align(5000, 8).unwrap();
            let moved = arena.realloc(grown, layout, 6000);
            assert!(moved != first && holds(moved, 100, 1) && holds(second, 16, 2));
            arena.dealloc(moved, Layout::from_size_align(6000, 8).unwrap());
            assert_eq!(piece(arena, 64, 8, 3).0, moved);
            arena.dealloc(second, short);
            assert!(holds(moved, 64, 3));
        }
    }

    #[test]
    fn what_does_not_fit_is_the_systems() {
        static ARENA: Arena = Arena::new();
        let arena = &ARENA;
        let (inside, layout) = piece(arena, ROOM - 10, 1, 1);
        let (outside, other) = piece(arena, 11, 1, 2);
        let (wide, aligned) = piece(arena, 1, 8192, 3);
        assert!(arena.place(inside).is_some());
        assert!(arena.place(outside).is_none() && arena.place(wide).is_none());
        // SAFETY: as above.
        unsafe {
            let outside = arena.realloc(outside, other, 100_000);
            assert!(holds(outside, 11, 2));
            arena.dealloc(outside, Layout::from_size_align(100_000, 1).unwrap());
            arena.dealloc(wide, aligned);
            let moved = arena.realloc(inside, layout, ROOM + 1);
            assert!(arena.place(moved).is_none() && holds(moved, ROOM - 10, 1));
            arena.dealloc(moved, Layout::from_size_align(ROOM + 1, 1).unwrap());
        }
        assert!(arena.place(piece(arena, ROOM, 1, 4).0).is_some());
    }

    #[test]
    fn threads_get_pieces_of_their_own() {
        static ARENA: Arena = Arena::new();
        let arena = &ARENA;
        std::thread::scope(|scope| {
            for byte in 0..4 {
                scope.spawn(move || {
                    for size in 1..300 {
                        let (piece, layout) = piece(arena, size, 8, byte);
                        std::thread::yield_now();
                        assert!(holds(piece, size, byte));
                        // SAFETY: as above.
                        unsafe { arena.dealloc(piece, layout) };
                    }
                });
            }
        });
    }
}
