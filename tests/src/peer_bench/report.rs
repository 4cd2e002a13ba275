//! Medians, ratios, floors: the table and the JSON file.

use super::{
    plan::{Group, Measure, Plan, Work},
    side::Run,
};
use serde_json::{Value, json};
use std::fmt::Write;

/// The two emulators.
pub const SIDES: [&str; 2] = ["ours", "peer"];

/// Everything measured of one workload.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// On the host.
    pub native: Vec<Run>,
    /// In guests of ours and of the peer.
    pub guest: [Vec<Run>; 2],
    /// What went wrong, results that differ included.
    pub failures: Vec<String>,
}

/// The median; NaN of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut v: Vec<f64> = values.into_iter().collect();
    v.sort_by(f64::total_cmp);
    match v.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => v[n / 2],
        n => (v[n / 2 - 1] + v[n / 2]) / 2.0,
    }
}

/// The geometric mean; NaN of nothing.
pub fn geomean(values: &[f64]) -> f64 {
    (values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp()
}

/// The measured workloads of a plan.
pub struct Report<'a> {
    plan: &'a Plan,
    rows: Vec<(&'a Group, &'a Work, Row)>,
}

impl<'a> Report<'a> {
    /// Of these rows.
    pub fn new(plan: &'a Plan, rows: Vec<(&'a Group, &'a Work, Row)>) -> Self {
        Self { plan, rows }
    }

    fn time(group: &Group, runs: &[Run]) -> f64 {
        median(runs.iter().map(|r| if group.measure == Measure::Cpu { r.cpu } else { r.wall }))
    }

    /// Percent of a host core that ours used.
    fn used(row: &Row) -> f64 {
        median(row.guest[0].iter().map(|r| r.cpu / r.wall * 100.0))
    }

    fn ratio(group: &Group, row: &Row) -> f64 {
        let [ours, peer] = [0, 1].map(|side| Self::time(group, &row.guest[side]));
        peer / ours
    }

    /// What a side gains over one processor, by native's gain.
    fn share(&self, group: &Group, work: &Work, row: &Row, side: usize) -> Option<f64> {
        let alone = &self.rows.iter().find(|(_, w, _)| Some(&w.name) == work.alone.as_ref())?.2;
        let gain = |one: &[Run], many: &[Run]| Self::time(group, one) / Self::time(group, many);
        finite(gain(&alone.guest[side], &row.guest[side]) / gain(&alone.native, &row.native))
    }

    /// The figures that a group's mean is made of, and whether all of its workloads were measured.
    fn figures(&self, group: &Group) -> (Vec<f64>, bool) {
        let mine = self.rows.iter().filter(|(g, ..)| g.name == group.name);
        let figures: Vec<f64> = match group.measure {
            Measure::Cpu | Measure::Wall => mine.map(|(g, _, row)| Self::ratio(g, row)).collect(),
            Measure::Share => mine.filter_map(|(g, w, row)| self.share(g, w, row, 0)).collect(),
        };
        let wanted = group.works.iter().filter(|w| group.measure != Measure::Share || w.alone.is_some()).count();
        let whole = figures.len() == wanted && figures.iter().all(|f| f.is_finite());
        (figures.into_iter().filter(|f| f.is_finite()).collect(), whole)
    }

    /// One line each: what is below its floor.
    pub fn below(&self) -> Vec<String> {
        let mut lines = vec![];
        for (group, work, row) in &self.rows {
            let ratio = Self::ratio(group, row);
            if ratio < self.plan.any {
                lines.push(format!("{}: {ratio:.2} is below the floor of any workload, {}", work.name, self.plan.any));
            }
            let used = Self::used(row);
            if let Some(most) = group.most.filter(|most| used > *most) {
                lines.push(format!("{}: {used:.1} % of a host core, at most {most} are allowed", work.name));
            }
        }
        for group in &self.plan.groups {
            let (figures, whole) = self.figures(group);
            let mean = geomean(&figures);
            if whole && mean < group.floor {
                lines.push(format!("{}: {mean:.2} is below the floor, {}", group.title, group.floor));
            }
        }
        lines
    }

    /// One line each: what failed, results that differ included.
    pub fn failures(&self) -> Vec<String> {
        self.rows.iter().flat_map(|(_, w, row)| row.failures.iter().map(|f| format!("{}: {f}", w.name))).collect()
    }

    /// The tables.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{:16} {:>8} {:>9} {:>9} {:>9} {:>10} {:>11}  {}\n",
            "workload", "count", "native s", "ours s", "peer s", "peer/ours", "ours/native", "group"
        );
        for (group, work, row) in &self.rows {
            let native = Self::time(group, &row.native);
            let [ours, peer] = [0, 1].map(|side| Self::time(group, &row.guest[side]));
            let _ = write!(
                out,
                "{:16} {:8} {} {} {} {} {}  {}",
                work.name,
                work.count,
                cell(native, 9, 3),
                cell(ours, 9, 2),
                cell(peer, 9, 2),
                cell(peer / ours, 10, 2),
                cell(ours / native, 11, 1),
                group.name
            );
            if group.measure == Measure::Wall {
                let [ours, peer] = [0, 1].map(|side| median(row.guest[side].iter().map(|r| r.cpu)));
                let _ = write!(out, ", elapsed (processor time {}, {:.2})", cell(ours, 0, 2), peer / ours);
            }
            if let Some(most) = group.most {
                let _ = write!(out, ", {:.1} % of a host core (at most {most})", Self::used(row));
            }
            if work.cpus > 1 {
                let _ = write!(out, ", {} CPUs, wall", work.cpus);
            }
            let shares = [0, 1].map(|side| self.share(group, work, row, side));
            if let [Some(a), Some(b)] = shares {
                let _ = write!(out, ", share of native's gain {a:.2} (peer {b:.2})");
            }
            out += if row.failures.is_empty() { "\n" } else { "  FAILED\n" };
        }
        let _ = writeln!(out, "\n{:48} {:>6} {:>6} {:>6}", "group (geometric mean)", "mean", "floor", "goal");
        for group in &self.plan.groups {
            let (figures, whole) = self.figures(group);
            if figures.is_empty() {
                continue;
            }
            let mean = geomean(&figures);
            let verdict = match mean {
                _ if !whole => "not all of it",
                m if m < group.floor => "below the floor",
                m if m < group.goal => "above the floor",
                _ => "goal reached",
            };
            let _ = writeln!(out, "{:48} {mean:6.2} {:6.2} {:6.2}  {verdict}", group.title, group.floor, group.goal);
        }
        out
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let runs = |runs: &[Run]| -> Vec<Value> {
            runs.iter().map(|r| json!({"cpu": r.cpu, "wall": r.wall, "inside": r.inside, "digest": r.digest})).collect()
        };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(g, w, row)| {
                json!({
                    "name": w.name, "group": g.name, "count": w.count, "cpus": w.cpus, "native": runs(&row.native),
                    "ours": runs(&row.guest[0]), "peer": runs(&row.guest[1]), "ratio": finite(Self::ratio(g, row)),
                    "share": self.share(g, w, row, 0), "failures": row.failures,
                })
            })
            .collect();
        let groups: Vec<Value> = self
            .plan
            .groups
            .iter()
            .map(|g| {
                let (figures, whole) = self.figures(g);
                let mean = finite(geomean(&figures));
                json!({"name": g.name, "mean": mean, "floor": g.floor, "goal": g.goal, "whole": whole})
            })
            .collect();
        json!({"rows": rows, "groups": groups, "below": self.below()})
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn cell(value: f64, width: usize, digits: usize) -> String {
    if value.is_finite() { format!("{value:width$.digits$}") } else { format!("{:>width$}", "-") }
}
