//! Evaluation tasks that are part of the program: some about generated tales, with their documents, and some for data that
//! users have, in the harness's words.

mod tales;

use ounce_eval::tasks::{Config, Document, Result, Task};

/// A task that needs no file of its own.
#[derive(Debug)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// What it asks, in a few words.
    pub what: &'static str,
    /// Its file.
    pub yaml: &'static str,
    /// What writes its documents; none for a task whose data the user brings.
    documents: Option<fn() -> Vec<Document>>,
}

macro_rules! task {
    ($name:literal, $what:literal, $documents:expr) => {
        BuiltIn {
            name: $name,
            what: $what,
            yaml: include_str!(concat!("files/", $name, ".yaml")),
            documents: $documents,
        }
    };
}

/// All of them, those with documents first.
pub static ALL: [BuiltIn; 20] = [
    task!("tales", "which sentence goes on with a tale, of four", Some(tales::continuations)),
    task!("tales_answers", "a question about a tale", Some(tales::answers)),
    task!("tales_words", "the last word of a tale", Some(tales::texts)),
    task!("tales_text", "perplexity of tales", Some(tales::texts)),
    task!("sst2", "mood of a sentence; rows of sentence and label (0, 1), separated by tabs", None),
    task!("ag_news", "topic of news; rows of class (1 to 4), title, description, separated by commas", None),
    task!("trec", "what a question asks for; lines of a label (0 to 5) and a question", None),
    task!("arc_easy", "science questions; question, choices.text, choices.label, answerKey", None),
    task!("arc_challenge", "harder science questions; the same", None),
    task!("piqa", "how things are done; goal, sol1, sol2, label", None),
    task!("openbookqa", "elementary science; question_stem, choices.text, choices.label, answerKey", None),
    task!("boolq", "yes or no about a passage; passage, question, label (0, 1)", None),
    task!("commonsense", "eight sets in one form; instruction with its answer format, answer", None),
    task!("pubmedqa", "yes, no or maybe by an abstract; CONTEXTS, QUESTION, final_decision", None),
    task!("winogrande", "whom a sentence means; sentence with _, option1, option2, answer (1, 2)", None),
    task!("lambada_openai", "the last word of a passage; text", None),
    task!("gsm8k", "sums in words; question, answer with #### before the number", None),
    task!("humaneval", "programs, which are run; prompt, test, entry_point", None),
    task!("mmlu_prompts", "knowledge in 57 fields, prompts ready; input, output (A to D)", None),
    task!("bbh", "a task of BIG-Bench Hard; {\"examples\": [{input, target}]}", None),
];

impl BuiltIn {
    /// The task of that name.
    pub fn find(name: &str) -> Option<&'static BuiltIn> {
        ALL.iter().find(|task| task.name == name)
    }

    /// What its file says.
    ///
    /// # Errors
    /// If its file is at fault, which it is not.
    pub fn config(&self) -> Result<Config> {
        Config::parse(self.yaml, self.name)
    }

    /// Its documents; none for a task whose data the user brings.
    pub fn documents(&self) -> Option<Vec<Document>> {
        self.documents.map(|write| write())
    }

    /// The task with its own documents, which are its examples too; none for a task whose data the user brings.
    ///
    /// # Errors
    /// As [`Task::new`].
    pub fn task(&self, config: Config) -> Option<Result<Task>> {
        let documents = self.documents()?;
        Some(Task::new(config, documents.clone(), documents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_tasks_and_those_with_documents_can_be_asked() {
        for built_in in &ALL {
            let config = built_in.config().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.task, built_in.name);
            if let Some(task) = built_in.task(config) {
                assert!(task.unwrap_or_else(|error| panic!("{error}")).len() >= 100, "{}", built_in.name);
            }
        }
        assert!(BuiltIn::find("tales").is_some() && BuiltIn::find("tails").is_none());
    }
}
