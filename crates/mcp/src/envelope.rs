//! Finds the id of a JSON-RPC message without holding or parsing the message: for lines that are too long, too deep
//! or broken, whose sender still waits for an answer.

use rmcp::model::RequestId;

/// Bytes of a key or an id that are kept; longer ones are not ours.
const KEPT: usize = 256;

/// Reads a message byte by byte and remembers the `id` of its outermost object.
#[derive(Debug, Default)]
pub(crate) struct IdScanner {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The key or the scalar value being read at depth 1.
    text: Vec<u8>,
    key_is_id: bool,
    id: Option<RequestId>,
}

impl IdScanner {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.feed_byte(byte);
        }
    }

    /// The id, as far as has been read.
    pub(crate) fn id(mut self) -> Option<RequestId> {
        self.end_member();
        self.id
    }

    fn feed_byte(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.keep(byte);
            }
            b'{' | b'[' => {
                self.depth += 1;
                // A nested value of "id" is none.
                self.text.clear();
            }
            b'}' | b']' => {
                if self.depth == 1 {
                    self.end_member();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b':' if self.depth == 1 => {
                self.key_is_id = self.text.trim_ascii() == b"\"id\"";
                self.text.clear();
            }
            b',' if self.depth == 1 => self.end_member(),
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.depth == 1 && self.text.len() < KEPT {
            self.text.push(byte);
        }
    }

    fn end_member(&mut self) {
        if self.key_is_id
            && let Ok(id) = serde_json::from_slice(&self.text)
        {
            self.id = Some(id);
        }
        self.key_is_id = false;
        self.text.clear();
    }
}

/// The id in a whole line.
pub(crate) fn id_of(line: &[u8]) -> Option<RequestId> {
    let mut scanner = IdScanner::default();
    scanner.feed(line);
    scanner.id()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_id_is_found_wherever_it_stands() {
        let seven = Some(RequestId::Number(7));
        assert_eq!(id_of(br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"id":8}}"#), seven);
        assert_eq!(id_of(br#"{"params":{"id":8,"x":[{"id":9}]}, "id" : 7 }"#), seven);
        assert_eq!(id_of(br#"{"params":"\"id\":8,{[","id":7"#), seven);
        assert_eq!(id_of(br#"{"id":"a,b}\"c"}"#), Some(RequestId::String("a,b}\"c".into())));
    }

    #[test]
    fn what_is_no_id_is_none() {
        for line in [
            &br#"{"method":"x","params":{"id":8}}"#[..],
            b"[7]",
            b"",
            b"id:7",
            br#"{"id":null}"#,
            br#"{"id":{"id":7}}"#,
        ] {
            assert_eq!(id_of(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
            id_of(&bytes);
        }

        #[test]
        fn any_message_gives_its_id(id: i64, text: String) {
            let key = text.clone();
            let message = serde_json::json!({"params": {"text": text, "id": text}, "id": id, key: [text]});
            if message["id"] == id {
                prop_assert_eq!(id_of(message.to_string().as_bytes()), Some(RequestId::Number(id)));
            }
        }
    }
}
