//! What must come before what, and whether that leads in a circle.

/// Arrows between transactions, and moments of real time between them.
pub(super) struct Graph {
    transactions: usize,
    arrows: Vec<Vec<usize>>,
}

impl Graph {
    /// Without any arrow.
    pub fn new(transactions: usize) -> Self {
        Self {
            transactions,
            arrows: vec![Vec::new(); transactions],
        }
    }

    /// One comes before the other.
    pub fn arrow(&mut self, from: usize, to: usize) {
        self.arrows[from].push(to);
    }

    /// Whoever had returned before another one was invoked comes before it. Each: its number, when it was invoked, and when it
    /// returned if it did. A moment stands for each return, so that arrows grow with transactions and not with pairs of them.
    pub fn real_time(&mut self, times: impl Iterator<Item = (usize, u64, Option<u64>)>) {
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (number, invoked, returned) in times {
            events.push((invoked, false, number));
            events.extend(returned.map(|returned| (returned, true, number)));
        }
        // At one microsecond nothing is certain: invocations come first.
        events.sort_unstable();
        let mut moment = None;
        for (_, is_return, number) in events {
            if is_return {
                let next = self.arrows.len();
                self.arrows.push(Vec::new());
                self.arrow(number, next);
                if let Some(last) = moment.replace(next) {
                    self.arrow(last, next);
                }
            } else if let Some(last) = moment {
                self.arrow(last, number);
            }
        }
    }

    /// Transactions that come before themselves, by circles that have any of them in common (Tarjan's algorithm, without recursion).
    pub fn circles(&self) -> Vec<Vec<usize>> {
        let mut search = Search {
            graph: self,
            index: vec![None; self.arrows.len()],
            low: vec![0; self.arrows.len()],
            is_open: vec![false; self.arrows.len()],
            open: Vec::new(),
            next: 0,
            found: Vec::new(),
        };
        for node in 0..self.arrows.len() {
            if search.index[node].is_none() {
                search.from(node);
            }
        }
        search.found
    }
}

struct Search<'a> {
    graph: &'a Graph,
    index: Vec<Option<usize>>,
    low: Vec<usize>,
    is_open: Vec<bool>,
    open: Vec<usize>,
    next: usize,
    found: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn enter(&mut self, node: usize) {
        self.index[node] = Some(self.next);
        self.low[node] = self.next;
        self.next += 1;
        self.open.push(node);
        self.is_open[node] = true;
    }

    fn from(&mut self, root: usize) {
        let mut path = vec![(root, 0)];
        self.enter(root);
        while let Some((node, at)) = path.last_mut() {
            let node = *node;
            if let Some(&to) = self.graph.arrows[node].get(*at) {
                *at += 1;
                match self.index[to] {
                    None => {
                        self.enter(to);
                        path.push((to, 0));
                    }
                    Some(index) if self.is_open[to] => self.low[node] = self.low[node].min(index),
                    Some(_) => {}
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                self.low[*parent] = self.low[*parent].min(self.low[node]);
            }
            if Some(self.low[node]) == self.index[node] {
                self.close(node);
            }
        }
    }

    fn close(&mut self, root: usize) {
        let mut circle = Vec::new();
        while let Some(node) = self.open.pop() {
            self.is_open[node] = false;
            if node < self.graph.transactions {
                circle.push(node);
            }
            if node == root {
                break;
            }
        }
        if circle.len() > 1 {
            circle.sort_unstable();
            self.found.push(circle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_and_a_row_is_none() {
        let mut graph = Graph::new(4);
        graph.arrow(0, 1);
        graph.arrow(1, 2);
        graph.arrow(0, 2);
        assert!(graph.circles().is_empty());
        graph.arrow(2, 1);
        assert_eq!(graph.circles(), [vec![1, 2]]);
    }

    #[test]
    fn time_is_an_order_too() {
        let mut graph = Graph::new(3);
        graph.real_time([(0, 0, Some(4)), (1, 5, Some(6)), (2, 4, None)].into_iter());
        assert!(graph.circles().is_empty());
        graph.arrow(1, 0);
        assert_eq!(graph.circles(), [vec![0, 1]]);
        // What was never answered precedes nothing.
        let mut open = Graph::new(2);
        open.real_time([(0, 0, None), (1, 5, Some(6))].into_iter());
        open.arrow(1, 0);
        assert!(open.circles().is_empty());
    }

    #[test]
    fn a_row_of_many_takes_no_stack() {
        let count = 200_000;
        let mut graph = Graph::new(count);
        for number in 1..count {
            graph.arrow(number - 1, number);
        }
        graph.arrow(count - 1, 0);
        assert_eq!(graph.circles()[0].len(), count);
    }
}
