//! What a device and the node say to each other on a socket: pure, texts in and out.
//!
//! ```text
//! 7\n{"points":[…]}                                       a batch: its number, a line feed, and a body as it would be posted
//! {"batch":7,"points":120}                                all of it is durable
//! {"batch":7,"points":120,"ack":"cloud"}                  … in the cloud, where the URL asks for that
//! {"batch":7,"error":{"code":"bad_point","message":"…"}}  it is refused
//! ```
//! The number stands outside the body, so that a refusal can name a batch of which nothing else could be read.

use serde_json::{Value, json};

use crate::http::error::ApiError;

/// The largest number of a batch: that up to which the numbers of JSON are whole in every language.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// A message that does not begin with a number on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoNumber;

/// A batch's number and its body.
pub(super) fn split(message: &[u8]) -> Result<(u64, &[u8]), NoNumber> {
    let end = memchr::memchr(b'\n', message).ok_or(NoNumber)?;
    let (digits, body) = message.split_at_checked(end).ok_or(NoNumber)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(NoNumber);
    }
    let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(NoNumber)?;
    let body = body.get(1..).ok_or(NoNumber)?;
    if number > NUMBER_MAX { Err(NoNumber) } else { Ok((number, body)) }
}

/// A batch that is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub points: u64,
    /// What is known of where it is durable, where that was asked for: an object.
    pub known: Option<Value>,
}

/// The answer to a batch.
pub(super) fn answer(number: u64, outcome: &Result<Stored, ApiError>) -> String {
    match outcome {
        Ok(Stored { points, known: None }) => format!(r#"{{"batch":{number},"points":{points}}}"#),
        Ok(Stored { points, known: Some(known) }) => {
            let mut answer = json!({"batch": number, "points": points});
            for (name, value) in known.as_object().into_iter().flatten() {
                answer[name] = value.clone();
            }
            answer.to_string()
        }
        Err(error) => json!({"batch": number, "error": error.in_json()}).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::ErrorCode;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_batch_is_its_number_and_its_body_as_it_was_sent(number in 0..=NUMBER_MAX, body: Vec<u8>) {
            let message = [format!("{number}\n").as_bytes(), &body].concat();
            prop_assert_eq!(split(&message), Ok((number, body.as_slice())));
        }

        #[test]
        fn whatever_else_comes_is_no_batch(message: Vec<u8>) {
            if let Ok((number, body)) = split(&message) {
                let digits = message.len() - body.len() - 1;
                let text = std::str::from_utf8(&message[..digits]).unwrap();
                prop_assert_eq!(text.parse(), Ok(number));
            }
        }
    }

    #[test]
    fn a_message_without_its_number_is_no_batch() {
        let too_large = format!("{}\n", NUMBER_MAX + 1);
        for bad in ["", "\n", "7", "+7\n{}", "-7\n", " 7\n", "7 \n", "7\r\n", "x\n", "{}\n{}", &too_large] {
            assert_eq!(split(bad.as_bytes()), Err(NoNumber), "{bad:?}");
        }
        assert_eq!(split(b"007\n\n"), Ok((7, b"\n".as_slice())));
    }

    #[test]
    fn an_answer_names_its_batch() {
        let stored = |known| Ok(Stored { points: 120, known });
        assert_eq!(answer(7, &stored(None)), r#"{"batch":7,"points":120}"#);
        let cloud = answer(7, &stored(Some(json!({"ack": "cloud"}))));
        assert_eq!(cloud, r#"{"ack":"cloud","batch":7,"points":120}"#);
        let error = ApiError::new(ErrorCode::DiskFull, "full");
        let refused = answer(NUMBER_MAX, &Err(error));
        assert_eq!(refused, r#"{"batch":9007199254740991,"error":{"code":"disk_full","message":"full"}}"#);
    }
}
