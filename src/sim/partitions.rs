//! Which links a partition cuts: the plain shapes, and those that have stopped real clusters.
//!
//! A shape is a graph over the nodes in an order that was drawn: the first is the fault's victim, often a leader. Five of them are
//! known by name (`V` is the victim, a line is a link that stands in both directions):
//!
//! ```text
//!   one link      five nodes           quorum loss      constrained      chain
//!
//!   V       C     4 -- V ----- 2 -- 5      V  C  D  E     V  C  D  E       V -- B -- C -- D
//!    \     /            \     /             \ |  | /         |  | /
//!       B                  3                   B              B
//! ```
//! - *one link*: Cloudflare's outage of 2020: a follower that only the leader cannot reach.
//! - *five nodes*: Howard and Abraham, 2020: three that hear each other, each of two others hears one of them.
//! - *quorum loss*: one node hears all, the others hear only it, and the leader is one of those.
//! - *constrained*: the same, but the leader hears nobody, and the one that hears all lacks entries.
//! - *chain*: each node hears its neighbours. The last three are from Ng, Haridi and Carbone, *Omni-Paxos* (EuroSys 2023).
//!
//! While one lasts there may be no leader: plain Raft does no better in some of them. No promise may break meanwhile, and all
//! must be well again when the links are.

use super::network::Place;
use super::random::Random;

/// One direction of a link.
pub(crate) type Direction = (Place, Place);

/// How a partition looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Two sides that do not hear each other.
    Halves,
    /// The victim hears nobody, and nobody hears it.
    Alone,
    /// Of each of the victim's links one direction.
    Mixed,
    /// All that the victim sends, or all that it is sent.
    Mute,
    /// One direction of one link.
    OneWay,
    /// One link of a leader: Cloudflare.
    OneLink,
    /// Howard and Abraham's five nodes.
    FiveNodes,
    /// Only one node hears a majority, and it does not lead.
    QuorumLoss,
    /// As [`Shape::QuorumLoss`], with a leader that is gone and a node in the middle that lacks entries.
    Constrained,
    /// A line of nodes.
    Chain,
}

/// Every shape, the plain ones first.
pub(crate) const SHAPES: [Shape; 10] = [
    Shape::Halves,
    Shape::Alone,
    Shape::Mixed,
    Shape::Mute,
    Shape::OneWay,
    Shape::OneLink,
    Shape::FiveNodes,
    Shape::QuorumLoss,
    Shape::Constrained,
    Shape::Chain,
];

impl Shape {
    /// Its name in a report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Halves => "partition: halves",
            Self::Alone => "partition: one node alone",
            Self::Mixed => "partition: each link one way",
            Self::Mute => "partition: one node mute or deaf",
            Self::OneWay => "partition: one link one way",
            Self::OneLink => "partition: one link",
            Self::FiveNodes => "partition: five nodes",
            Self::QuorumLoss => "partition: quorum loss",
            Self::Constrained => "partition: constrained election",
            Self::Chain => "partition: chain",
        }
    }

    /// Nodes below which it is another shape, or none.
    pub(crate) fn nodes_min(self) -> usize {
        match self {
            Self::Halves | Self::Alone | Self::Mixed | Self::Mute | Self::OneWay => 2,
            Self::OneLink | Self::Chain => 3,
            Self::QuorumLoss | Self::Constrained => 4,
            Self::FiveNodes => 5,
        }
    }

    /// A shape that so many nodes can have.
    pub(crate) fn draw(random: &mut Random, nodes: usize) -> Self {
        let possible: Vec<Self> = SHAPES.into_iter().filter(|shape| shape.nodes_min() <= nodes).collect();
        *random.pick(&possible)
    }

    /// The directions that it cuts. `order` names every node, the victim first, and where it matters who is in the middle that one second.
    pub(crate) fn cut(self, random: &mut Random, order: &[Place]) -> Vec<Direction> {
        let (victim, others) = order.split_first().expect("a cluster has nodes");
        let both = |other: &Place| [(*victim, *other), (*other, *victim)];
        match self {
            Self::Halves => {
                // The second node is always on the other side.
                let left: Vec<bool> =
                    (0..order.len()).map(|rank| rank == 0 || (rank > 1 && random.chance(400))).collect();
                cut_all_but(order, |a, b| left[a] == left[b])
            }
            Self::Alone => others.iter().flat_map(both).collect(),
            Self::Mixed => others.iter().map(|other| *random.pick(&both(other))).collect(),
            Self::Mute => {
                let outward = usize::from(random.chance(500));
                others.iter().map(|other| both(other)[outward]).collect()
            }
            Self::OneWay => vec![*random.pick(&both(&others[0]))],
            Self::OneLink => both(&others[others.len() - 1]).to_vec(),
            // The fourth hears the victim, the fifth hears the second; whoever is left belongs to the core.
            Self::FiveNodes => cut_all_but(order, |a, b| match (a.min(b), a.max(b)) {
                (low, 3) => low == 0,
                (low, 4) => low == 1,
                (3 | 4, _) => false,
                _ => true,
            }),
            Self::QuorumLoss => cut_all_but(order, |a, b| a == 1 || b == 1),
            Self::Constrained => cut_all_but(order, |a, b| (a == 1 || b == 1) && a != 0 && b != 0),
            Self::Chain => cut_all_but(order, |a, b| a.abs_diff(b) == 1),
        }
    }
}

/// Every direction between two nodes whose link does not stand; `stands` is asked with their ranks in `order`.
fn cut_all_but(order: &[Place], stands: impl Fn(usize, usize) -> bool) -> Vec<Direction> {
    let ranks = 0..order.len();
    let pairs = ranks.clone().flat_map(|a| ranks.clone().map(move |b| (a, b)));
    pairs.filter(|(a, b)| a != b && !stands(*a, *b)).map(|(a, b)| (order[a], order[b])).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Whom each node of five hears, the victim being node 2 and the one in the middle node 4.
    fn heard(shape: Shape) -> Vec<Vec<Place>> {
        let cut: BTreeSet<Direction> = shape.cut(&mut Random::new(1), &[2, 4, 0, 1, 3]).into_iter().collect();
        (0..5).map(|to| (0..5).filter(|from| *from != to && !cut.contains(&(*from, to))).collect()).collect()
    }

    #[test]
    fn the_named_shapes_are_the_graphs_of_the_literature() {
        assert_eq!(
            heard(Shape::OneLink),
            [vec![1, 2, 3, 4], vec![0, 2, 3, 4], vec![0, 1, 4], vec![0, 1, 4], vec![0, 1, 2, 3]]
        );
        assert_eq!(heard(Shape::FiveNodes), [vec![2, 4], vec![2], vec![0, 1, 4], vec![4], vec![0, 2, 3]]);
        assert_eq!(heard(Shape::QuorumLoss), [vec![4], vec![4], vec![4], vec![4], vec![0, 1, 2, 3]]);
        assert_eq!(heard(Shape::Constrained), [vec![4], vec![4], vec![], vec![4], vec![0, 1, 3]]);
        assert_eq!(heard(Shape::Chain), [vec![1, 4], vec![0, 3], vec![4], vec![1], vec![0, 2]]);
    }

    #[test]
    fn every_shape_touches_its_victim_and_cuts_no_direction_twice() {
        let mut random = Random::new(5);
        for shape in SHAPES {
            for _ in 0..50 {
                let cut = shape.cut(&mut random, &[2, 0, 3, 1, 4]);
                assert!(cut.iter().any(|(from, to)| *from == 2 || *to == 2), "{shape:?}: {cut:?}");
                assert!(cut.iter().all(|(from, to)| from != to), "{shape:?}: {cut:?}");
                assert_eq!(cut.iter().collect::<BTreeSet<_>>().len(), cut.len(), "{shape:?}: {cut:?}");
            }
        }
    }

    #[test]
    fn halves_leave_each_side_whole() {
        let mut random = Random::new(6);
        for _ in 0..50 {
            let cut = Shape::Halves.cut(&mut random, &[0, 1, 2, 3, 4]);
            assert!(cut.contains(&(0, 1)) && cut.contains(&(1, 0)));
            for (from, to) in &cut {
                assert!(cut.contains(&(*to, *from)), "{cut:?}");
            }
        }
    }

    #[test]
    fn few_nodes_draw_only_shapes_that_they_can_have() {
        let mut random = Random::new(7);
        for nodes in 2..=7 {
            let drawn: Vec<Shape> = (0..500).map(|_| Shape::draw(&mut random, nodes)).collect();
            for shape in SHAPES {
                assert_eq!(drawn.contains(&shape), shape.nodes_min() <= nodes, "{shape:?} of {nodes} nodes");
            }
        }
    }
}
