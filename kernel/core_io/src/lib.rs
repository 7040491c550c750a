//! The part of `std::io` that fatfs 0.3.6 needs where there is no `std`.
//!
//! The published crate of this name has been dead for years. fatfs needs it in `no_std` builds. The
//! workspace's `[patch.crates-io]` replaces it by this crate. Semantics are those of `std::io`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

use core::fmt;

/// `std::io::Result`.
pub type Result<T> = core::result::Result<T, Error>;

/// The kinds of error that fatfs makes or looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The entry does not exist.
    NotFound,
    /// The entry exists already.
    AlreadyExists,
    /// A parameter is wrong.
    InvalidInput,
    /// The data is malformed.
    InvalidData,
    /// The data ends too early.
    UnexpectedEof,
    /// Not one byte could be written.
    WriteZero,
    /// To be tried again.
    Interrupted,
    /// Anything else: above all a fault of the device.
    Other,
}

/// `std::io::Error`: a kind and a fixed sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: &'static str,
}

impl Error {
    /// An error of this kind.
    pub const fn new(kind: ErrorKind, message: &'static str) -> Self {
        Error { kind, message }
    }

    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence.
    pub const fn message(&self) -> &'static str {
        self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

impl core::error::Error for Error {}

/// `std::io::Read`.
pub trait Read {
    /// Reads up to `buf.len()` bytes; 0 means the end.
    ///
    /// # Errors
    /// Those of the device; no byte was read then.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize>;

    /// Fills `buf`.
    ///
    /// # Errors
    /// Those of [`Read::read`], and `UnexpectedEof`.
    fn read_exact(&mut self, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            match self.read(buf) {
                Ok(0) => {
                    return Err(Error::new(ErrorKind::UnexpectedEof, "the data ends too early"));
                }
                Ok(n) => buf = &mut buf[n..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// `std::io::Write`.
pub trait Write {
    /// Writes up to `buf.len()` bytes.
    ///
    /// # Errors
    /// Those of the device; no byte was written then.
    fn write(&mut self, buf: &[u8]) -> Result<usize>;

    /// Makes sure that everything written has reached the device.
    ///
    /// # Errors
    /// Those of the device.
    fn flush(&mut self) -> Result<()>;

    /// Writes the whole of `buf`.
    ///
    /// # Errors
    /// Those of [`Write::write`], and `WriteZero`.
    fn write_all(&mut self, mut buf: &[u8]) -> Result<()> {
        while !buf.is_empty() {
            match self.write(buf) {
                Ok(0) => return Err(Error::new(ErrorKind::WriteZero, "the device takes no more")),
                Ok(n) => buf = &buf[n..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// `std::io::SeekFrom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekFrom {
    /// Bytes from the start.
    Start(u64),
    /// Bytes from the end.
    End(i64),
    /// Bytes from where the cursor stands.
    Current(i64),
}

/// `std::io::Seek`.
pub trait Seek {
    /// Moves the cursor and returns where it stands then, in bytes from the start.
    ///
    /// # Errors
    /// The place lies before the start.
    fn seek(&mut self, pos: SeekFrom) -> Result<u64>;
}

impl<T: Read + ?Sized> Read for &mut T {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        (**self).read(buf)
    }
}

impl<T: Write + ?Sized> Write for &mut T {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        (**self).write(buf)
    }

    fn flush(&mut self) -> Result<()> {
        (**self).flush()
    }
}

impl<T: Seek + ?Sized> Seek for &mut T {
    fn seek(&mut self, pos: SeekFrom) -> Result<u64> {
        (**self).seek(pos)
    }
}

/// `std::io::Cursor`, as far as fatfs uses it: over bytes in memory.
#[derive(Clone, Debug)]
pub struct Cursor<T> {
    inner: T,
    position: usize,
}

impl<T> Cursor<T> {
    /// A cursor at the start of `inner`.
    pub const fn new(inner: T) -> Self {
        Cursor { inner, position: 0 }
    }
}

impl<T: AsRef<[u8]>> Read for Cursor<T> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let rest = self.inner.as_ref().get(self.position..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        self.position += n;
        Ok(n)
    }
}

impl Write for Cursor<&mut [u8]> {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        let rest = self.inner.get_mut(self.position..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        rest[..n].copy_from_slice(&buf[..n]);
        self.position += n;
        Ok(n)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// `std::io::prelude`.
pub mod prelude {
    pub use super::{Read, Seek, Write};
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that takes or gives 3 bytes at a time, and is interrupted before each.
    struct Slow<T> {
        inner: T,
        interrupted: bool,
    }

    impl<T> Slow<T> {
        fn new(inner: T) -> Self {
            Slow { inner, interrupted: false }
        }

        fn interrupt(&mut self) -> Result<()> {
            self.interrupted = !self.interrupted;
            if self.interrupted { Err(Error::new(ErrorKind::Interrupted, "later")) } else { Ok(()) }
        }
    }

    impl<T: Read> Read for Slow<T> {
        fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
            self.interrupt()?;
            let n = buf.len().min(3);
            self.inner.read(&mut buf[..n])
        }
    }

    impl<T: Write> Write for Slow<T> {
        fn write(&mut self, buf: &[u8]) -> Result<usize> {
            self.interrupt()?;
            self.inner.write(&buf[..buf.len().min(3)])
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn read_exact_goes_on_after_short_reads_and_interruptions() {
        let mut stream = Slow::new(Cursor::new(b"0123456789"));
        let mut buf = [0; 7];
        stream.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"0123456");
        let error = stream.read_exact(&mut buf).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(&buf[..3], b"789");
    }

    #[test]
    fn write_all_goes_on_after_short_writes_and_interruptions() {
        let mut place = [0; 10];
        let mut stream = Slow::new(Cursor::new(&mut place[..]));
        stream.write_all(b"0123456").unwrap();
        assert_eq!(stream.write_all(b"abcd").unwrap_err().kind(), ErrorKind::WriteZero);
        assert_eq!(&place, b"0123456abc");
    }

    #[test]
    fn other_errors_pass() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> Result<usize> {
                Err(Error::new(ErrorKind::Other, "broken"))
            }
        }
        let error = Broken.read_exact(&mut [0]).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Other, "broken"));
        Broken.read_exact(&mut []).unwrap();
    }
}
