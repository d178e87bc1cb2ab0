//! Who is next: by priority, then by turns among those who ask, so that one who asks a lot delays nobody else. Start-time
//! fair queueing (Goyal, Vin & Cheng 1996): each owner's next job starts at the virtual time its last one ended.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Items that wait.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// By priority and owner, in order of arrival.
    waiting: BTreeMap<i32, BTreeMap<String, VecDeque<(f64, T)>>>,
    /// Virtual time at which an owner's next item starts.
    starts: HashMap<String, f64>,
    /// Virtual time of what is served.
    now: f64,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> FairQueue<T> {
        FairQueue { waiting: BTreeMap::new(), starts: HashMap::new(), now: 0.0, len: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Items that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an item that will cost so much.
    pub fn push(&mut self, priority: i32, owner: &str, cost: f64, item: T) {
        let class = self.waiting.entry(priority).or_default();
        class.entry(owner.to_string()).or_default().push_back((cost, item));
        self.len += 1;
    }

    /// The next item.
    pub fn peek(&self) -> Option<&T> {
        let (priority, owner) = self.next()?;
        self.waiting.get(&priority)?.get(&owner)?.front().map(|(_, item)| item)
    }

    /// Takes the next item.
    pub fn pop(&mut self) -> Option<T> {
        let (priority, owner) = self.next()?;
        let class = self.waiting.get_mut(&priority)?;
        let items = class.get_mut(&owner)?;
        let (cost, item) = items.pop_front()?;
        if items.is_empty() {
            class.remove(&owner);
        }
        if class.is_empty() {
            self.waiting.remove(&priority);
        }
        self.len -= 1;
        // Who has not asked for a while starts now, without a credit.
        let start = self.start(&owner);
        self.now = start;
        self.starts.retain(|_, start| *start > self.now);
        self.starts.insert(owner, start + cost);
        Some(item)
    }

    /// Takes out the items for which `gone` says so.
    pub fn remove_if(&mut self, mut gone: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for class in self.waiting.values_mut() {
            for items in class.values_mut() {
                // Few are ever removed; the rest keeps its order.
                let mut index = 0;
                while index < items.len() {
                    if gone(&items[index].1) {
                        removed.extend(items.remove(index).map(|(_, item)| item));
                    } else {
                        index += 1;
                    }
                }
            }
            class.retain(|_, items| !items.is_empty());
        }
        self.waiting.retain(|_, class| !class.is_empty());
        self.len -= removed.len();
        removed
    }

    fn start(&self, owner: &str) -> f64 {
        self.starts.get(owner).map_or(self.now, |start| start.max(self.now))
    }

    fn next(&self) -> Option<(i32, String)> {
        let (priority, class) = self.waiting.first_key_value()?;
        let owner = class.keys().min_by(|a, b| self.start(a).total_cmp(&self.start(b)))?;
        Some((*priority, owner.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_take_turns_by_cost_and_priorities_come_first() {
        let mut queue = FairQueue::default();
        for n in 0..4 {
            queue.push(0, "many", 10.0, format!("many {n}"));
        }
        queue.push(0, "few", 20.0, "few 0".to_string());
        queue.push(0, "few", 20.0, "few 1".to_string());
        queue.push(-1, "many", 10.0, "urgent".to_string());
        let order: Vec<String> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["urgent", "few 0", "many 0", "few 1", "many 1", "many 2", "many 3"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_given_up_leaves_the_queue() {
        let mut queue = FairQueue::default();
        (0..6).for_each(|n| queue.push(n % 2, "a", 1.0, n));
        assert_eq!(queue.remove_if(|n| *n > 2).len(), 3);
        assert_eq!((queue.len(), queue.peek()), (3, Some(&0)));
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [0, 2, 1]);
    }
}
