//! A client that keeps no time of its own and shows what came: one HTTP/2 connection, in frames.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};

use crate::support::{H2Client, within};

pub struct Raw(H2Client);

/// A call of which the head has been sent.
pub struct RawCall {
    answer: ResponseFuture,
    upload: SendStream<Bytes>,
}

/// An answer, as far as it came.
#[derive(Debug)]
pub struct RawAnswer {
    pub head: HeaderMap,
    pub status: u16,
    /// The head ended the stream.
    pub bare: bool,
    pub body: RecvStream,
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Self {
        Self(H2Client::open(address).await)
    }

    /// Begins a call with these fields and, if it `ends`, no message.
    pub async fn call(&mut self, fields: &[(&str, &str)], ends: bool) -> RawCall {
        self.call_at("shop.example", fields, ends).await
    }

    pub async fn call_at(&mut self, host: &str, fields: &[(&str, &str)], ends: bool) -> RawCall {
        let mut request = Request::post(format!("http://{host}/test.Notes/Echo")).header("te", "trailers");
        if !fields.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (answer, upload) = self.0.send(request.body(()).unwrap(), ends).await;
        RawCall { answer, upload }
    }

    /// A call with no message, and its answer.
    pub async fn ask(&mut self, fields: &[(&str, &str)]) -> RawAnswer {
        self.call(fields, true).await.answer().await.unwrap()
    }
}

impl RawCall {
    /// Sends bytes, which should be a message.
    pub fn send(&mut self, bytes: &'static [u8]) -> Result<(), h2::Error> {
        self.upload.send_data(Bytes::from_static(bytes), false)
    }

    pub async fn answer(&mut self) -> Result<RawAnswer, h2::Error> {
        let (parts, body) = within("an answer", &mut self.answer).await?.into_parts();
        Ok(RawAnswer { status: parts.status.as_u16(), head: parts.headers, bare: body.is_end_stream(), body })
    }
}

impl RawAnswer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.get(name).map(|value| value.to_str().unwrap())
    }

    /// The next bytes; `None` at the end, however it came.
    pub async fn next(&mut self) -> Option<Bytes> {
        let data = within("more", self.body.data()).await?.ok()?;
        let _ = self.body.flow_control().release_capacity(data.len());
        Some(data)
    }

    /// The bytes until the end, and the reason for a reset.
    pub async fn rest(&mut self) -> (Vec<u8>, Option<Reason>) {
        let mut all = Vec::new();
        while let Some(data) = within("the rest", self.body.data()).await {
            match data {
                Ok(data) => {
                    let _ = self.body.flow_control().release_capacity(data.len());
                    all.extend_from_slice(&data);
                }
                Err(error) => return (all, error.reason()),
            }
        }
        (all, None)
    }
}
