//! The IDs of calls and results in the messages of a chat.
//!
//! ollama's clients leave IDs out: a result belongs to a call by the function's name, or by its
//! place. Some chat templates write IDs, so that calls without one get one here.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::llm::chat::conversation::Call;

/// The calls of the messages so far.
#[derive(Debug, Default)]
pub struct CallIds {
    /// ID and function of the last message's calls that have no result.
    waiting: Vec<(String, String)>,
    /// Calls of all messages.
    n_calls: usize,
}

impl CallIds {
    /// Takes the calls of a message. One without an ID gets one.
    pub fn add(&mut self, calls: &mut [Call]) {
        if !calls.is_empty() {
            self.waiting.clear();
        }
        for call in calls {
            self.n_calls = self.n_calls.saturating_add(1);
            if call.id.is_empty() {
                // Nine letters or digits, as Mistral's templates have them.
                call.id = format!("{:09}", self.n_calls);
            }
            self.waiting.push((call.id.clone(), call.name.clone()));
        }
    }

    /// The ID of a result.
    ///
    /// Without one, it is that of the first call of this function, or of the first one of all.
    pub fn of_result(&mut self, id: String, name: &str) -> String {
        let place = |is_it: &dyn Fn(&(String, String)) -> bool| self.waiting.iter().position(is_it);
        let found = match &*id {
            "" => place(&|(_, function)| function == name).or_else(|| place(&|_| true)),
            id => place(&|(other, _)| other == id),
        };
        found.map_or(id, |place| self.waiting.remove(place).0)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn calls(of: &[(&str, &str)]) -> Vec<Call> {
        let call = |&(id, name): &(&str, &str)| Call {
            id: id.into(),
            name: name.into(),
            ..Call::default()
        };
        of.iter().map(call).collect()
    }

    #[test]
    fn calls_without_an_id_get_one() {
        let mut ids = CallIds::default();
        let mut first = calls(&[("", "f"), ("own", "f")]);
        ids.add(&mut first);
        let mut next = calls(&[("", "g")]);
        ids.add(&mut next);
        let given: Vec<&str> = first.iter().chain(&next).map(|call| &*call.id).collect();
        assert_eq!(given, ["000000001", "own", "000000003"]);
    }

    #[test]
    fn results_belong_to_calls_by_id_name_or_place() {
        let mut ids = CallIds::default();
        let result = |ids: &mut CallIds, id: &str, name: &str| ids.of_result(id.into(), name);
        assert_eq!(result(&mut ids, "", "f"), "", "there is no call");
        ids.add(&mut calls(&[("a", "f"), ("b", "g"), ("c", "f"), ("d", "h")]));
        assert_eq!(result(&mut ids, "", "g"), "b");
        assert_eq!(result(&mut ids, "c", "nothing"), "c");
        assert_eq!(result(&mut ids, "other", "f"), "other");
        assert_eq!(result(&mut ids, "", ""), "a");
        assert_eq!(result(&mut ids, "", "f"), "d", "no call of f is left");
        assert_eq!(result(&mut ids, "", "f"), "");
        // A later message's calls are those of the results behind it.
        ids.add(&mut calls(&[("e", "f")]));
        ids.add(&mut calls(&[]));
        ids.add(&mut calls(&[("i", "f"), ("j", "g")]));
        let rest = ["", "", ""].map(|name| result(&mut ids, "", name));
        assert_eq!(rest, ["i", "j", ""].map(|id| id.to_string()));
    }
}
