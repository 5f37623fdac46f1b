//! WebSocket bytes as they are written by hand: a handshake, and frames well formed or not.

pub const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\n\
Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

pub const FIN: u8 = 0x80;
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// How a frame says its length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Bits7,
    Bits16,
    Bits64,
}

impl Form {
    /// The shortest, which is the one that is allowed.
    pub fn of(length: usize) -> Self {
        match length {
            0..126 => Self::Bits7,
            126..65_536 => Self::Bits16,
            _ => Self::Bits64,
        }
    }
}

/// A frame: its first byte (FIN, RSV and opcode), masked or not.
pub fn frame_in(form: Form, first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let flag = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match form {
        Form::Bits7 => frame.push(flag | u8::try_from(payload.len()).unwrap()),
        Form::Bits16 => {
            frame.push(flag | 126);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
        Form::Bits64 => {
            frame.push(flag | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

pub fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    frame_in(Form::of(payload.len()), first, mask, payload)
}
