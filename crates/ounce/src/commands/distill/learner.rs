//! The student in training: by predictions alone, or also by what lies between the layers of a teacher of another shape.

use anyhow::bail;
use ounce_model::Model;
use ounce_train::Trainable;
use ounce_train::distil::projected::{Related, projected};
use ounce_train::distil::relations::Relations;
use ounce_train::distil::{Distilled, LiveTeacher, Teacher};
use ounce_train::graph::GraphNet;
use ounce_train::loss::DivergenceKind;
use ounce_train::net::{Net, Options};

use super::teaching::TeachingArgs;

/// A student with all that it learns by.
pub(super) enum Learner<'t> {
    /// Its backward pass is written by hand.
    Plain(Box<Distilled<'t>>),
    /// Its layers are looked into.
    Seen(Box<GraphNet>),
}

impl<'t> Learner<'t> {
    /// The student `net`, which has the weights of `student`.
    ///
    /// # Errors
    /// If the two don't fit, or the loss follows steps, which a student that is looked into does not.
    pub fn new(
        net: Net,
        student: &Model,
        teacher: &Model,
        asked: Box<dyn Teacher + 't>,
        kind: DivergenceKind,
        steps: u64,
        args: &TeachingArgs,
    ) -> anyhow::Result<Learner<'t>> {
        let divergence = kind.divergence(args.taid(), steps)?;
        let wide = |model: &Model| model.spec.hidden_size;
        if args.relations == 0.0 && (args.features == 0.0 || wide(student) == wide(teacher)) {
            return Ok(Learner::Plain(Box::new(Distilled::new(net, asked, divergence, args.options())?)));
        }
        if kind == DivergenceKind::Taid {
            bail!(
                "--loss taid can't be had with --relations, or --features of another width; choose another loss"
            );
        }
        let related = match args.relations > 0.0 {
            true => {
                let usual = Relations::usual(student, teacher)?;
                let layer = args.relation_layer.map_or(usual.layer, |layer| layer - 1);
                let heads = args.relation_heads.unwrap_or(usual.heads);
                if layer >= teacher.spec.layers.len() {
                    bail!(
                        "--relation-layer {}: the teacher has {} layers",
                        layer + 1,
                        teacher.spec.layers.len()
                    );
                }
                Some(Related {
                    teacher,
                    relations: Relations { layer, heads, hard: 0.0 },
                    weight: args.relations,
                })
            }
            false => None,
        };
        // Teachers from files and of other tokenizers were refused with these flags: a live one is asked.
        let asked = LiveTeacher(Net::with_frozen(teacher, Options::default(), &|_| false)?);
        let student = projected(&net.model()?, asked, divergence, args.options(), related)?;
        Ok(Learner::Seen(Box::new(student)))
    }

    /// As the training loop knows it.
    pub fn as_trainable(&mut self) -> &mut dyn Trainable {
        match self {
            Learner::Plain(distilled) => &mut **distilled,
            Learner::Seen(net) => &mut **net,
        }
    }

    /// Where a moving target stands.
    pub fn share(&self) -> Option<f64> {
        match self {
            Learner::Plain(distilled) => distilled.divergence().share(),
            Learner::Seen(_) => None,
        }
    }

    /// What it has become.
    ///
    /// # Errors
    /// If weights can't be read.
    pub fn into_model(self) -> anyhow::Result<Model> {
        Ok(match self {
            Learner::Plain(distilled) => distilled.into_student().model()?,
            Learner::Seen(net) => net.model()?,
        })
    }
}
