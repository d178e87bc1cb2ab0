//! Tales at home: a broken toy, a broken vase, baking, learning, a fear, a gift, a secret.

use super::super::Plot;
use super::super::cast::Draw;

pub(super) const PLOTS: &[Plot] = &[
    // A toy breaks and is mended.
    Plot {
        draws: &[Draw::Toy],
        beats: &[
            &[
                "{he} had {a:colour} {toy}, and every day {he} liked to {use}.",
                "For {his} birthday, {his} {elder} gave {him} {a:colour} {toy}. {hero} loved to {use}.",
                "Of all {his} toys, {hero} liked the {colour} {toy} best. {he} could {use} for hours.",
            ],
            &[
                "But one {weather} {daytime}, {broken}. {hero} began to cry.",
                "One {daytime}, something sad happened: {broken}. \"Oh no!\" cried {hero}.",
                "Then, on a {weather} {daytime}, {broken}. {hero} sat on the floor and did not know what to do.",
            ],
            &[
                "{his} friend {friend} heard the crying and came in. \"Do not be sad,\" said {friend}. \"[We can fix it|Let us look at it|Things can be mended].\"",
                "{his} {elder} looked at the {toy}. \"A broken thing is not a lost thing,\" {ehe} said. \"[Let us fix it together|Bring me the tool box].\"",
                "{hero} wanted to throw the {toy} away, but {friend} said, \"Wait! [I have an idea|Give me a minute|I know what to do].\"",
            ],
            &[
                "They worked at the kitchen table, and in the end they {mended}.",
                "They took their time. First they cleaned the {toy}, and then they {mended}.",
                "It was not easy, but together they {mended}.",
            ],
            &[
                "Now the {toy} was as good as new. {hero} could {use} again.",
                "The {toy} looked a little different, but {hero} loved it even more than before.",
                "\"It works!\" shouted {hero}, and {he} gave {friend} a big hug.",
                "{hero} learned that [many broken things can be mended|it is better to fix a thing than to cry].",
            ],
        ],
        questions: &[
            ("What toy did {hero} have?", "{hero} had {a:colour} {toy}."),
            ("What was the color of the {toy}?", "The {toy} was {colour}."),
            ("What happened to the {toy}?", "One {daytime}, {broken}."),
        ],
    },
    // A lie and the truth.
    Plot {
        draws: &[Draw::Toy],
        beats: &[
            &[
                "On a {weather} {daytime}, {hero} and {friend} played with a ball in the house. {his} {elder} had said, \"Do not play with the ball inside.\"",
                "One {daytime}, {effect}, so {hero} stayed inside and jumped from chair to chair. {his} {elder} had asked {him} not to.",
            ],
            &[
                "Crash! The {colour} [vase|lamp|bowl] fell from the shelf and broke into many pieces.",
                "There was a loud noise. The {colour} [vase|plate|jar] of {his} {elder} lay broken on the floor.",
            ],
            &[
                "{hero} was scared. {he} hid the pieces under the [rug|bed|sofa].",
                "{hero} swept the pieces together and put them behind the [curtain|stove|door].",
            ],
            &[
                "When {his} {elder} came home, {ehe} asked, \"Who did this?\" \"[The cat|The wind] did it,\" said {hero}.",
                "\"What happened here?\" asked {his} {elder}. \"I do not know,\" said {hero}, but {his} face turned red.",
            ],
            &[
                "At supper {hero} could not eat. {his} stomach felt like a stone.",
                "That night {hero} could not sleep. {he} thought about the lie again and again.",
            ],
            &[
                "At last {he} went to {his} {elder} and said, \"I broke it. I am sorry.\"",
                "Then {he} ran to {his} {elder} and told the whole truth.",
            ],
            &[
                "{his} {elder} took {his} hand. \"Thank you for telling me,\" {ehe} said. \"A [vase|thing] can be replaced, but [trust|the truth] cannot.\"",
                "{his} {elder} was not angry. \"It takes courage to tell the truth,\" {ehe} said.",
            ],
            &[
                "After that, {hero} always told the truth, even when it was hard.",
                "{hero} felt as light as a feather.",
                "The next day they went to the shop together and {hero} paid with {his} own coins.",
            ],
        ],
        questions: &[
            ("Who broke it?", "{hero} broke it."),
            ("Did {hero} tell the truth at the end?", "Yes, {hero} told the truth."),
        ],
    },
    // Baking with something missing.
    Plot {
        draws: &[Draw::Food],
        beats: &[
            &[
                "One {daytime}, {hero} wanted to bake {food} for {friend}.",
                "It was a {weather} {daytime}, and {hero} was hungry. \"Let us make {food}!\" {he} said to {his} {elder}.",
                "{his} {elder} was going to have a birthday, so {hero} decided to bake {food}.",
            ],
            &[
                "{he} put on an apron and took out the big {colour} bowl.",
                "{he} washed {his} hands and read the recipe two times.",
            ],
            &[
                "But when {he} looked in the kitchen, there was no {part}. \"How can I make {food} without {part}?\" {he} asked.",
                "But something was missing. There was not even a little bit of {part} in the house.",
            ],
            &[
                "So {hero} went next door and knocked. The {helper} opened. \"May I have some {part}, please?\" asked {hero}.",
                "{hero} walked down the road until {he} met the {helper}. \"Do you have some {part}?\" {he} asked.",
            ],
            &[
                "\"Of course,\" said the {helper}. \"[But bring me one when you are done|Take as much as you need|I have more than enough].\"",
                "The {helper} smiled and gave {him} a whole [bag|basket|bowl] of {part}.",
            ],
            &[
                "Back at home, {hero} mixed everything and put it into the oven. Soon the whole house smelled sweet.",
                "{he} ran home, and {friend} helped {him} to stir. They waited in front of the oven until it was time.",
            ],
            &[
                "The {food} were [warm|golden|soft] and tasted wonderful. {hero} brought the first one to the {helper}.",
                "Everybody got one, and the {helper} got two.",
                "\"These are the best {food} in the world!\" said {friend} with a full mouth.",
            ],
            &[
                "",
                "{hero} learned that it is easy to ask when you ask politely.",
                "Sharing made the {food} taste even better.",
            ],
        ],
        questions: &[
            ("What did {hero} want to bake?", "{hero} wanted to bake {food}."),
            ("What was missing?", "There was no {part}."),
            ("Who had some {part}?", "The {helper} had some {part}."),
        ],
    },
    // Learning a skill.
    Plot {
        draws: &[Draw::Skill],
        beats: &[
            &[
                "More than anything, {hero} wanted to {skill}.",
                "All the others could {skill}, but {hero} could not.",
                "One {weather} {daytime}, {hero} saw {friend} [laugh|wave] and {skill}. \"I want to do that too,\" {he} thought.",
            ],
            &[
                "{he} tried it the next morning, but {he} {fail}.",
                "The first time, {he} {fail}. The second time, {he} {fail} again.",
                "{he} tried very hard. But {he} {fail}, and some birds in the tree seemed to laugh.",
            ],
            &[
                "\"I will never learn it,\" {he} said and kicked a stone.",
                "{hero} felt sad and went home with {his} head down.",
                "\"It is too hard for me,\" said {hero}.",
            ],
            &[
                "The {helper} had seen it all. \"[{tip}|Listen to me. {tip}],\" said the {helper}.",
                "{his} {elder} sat down next to {him}. \"{tip},\" {ehe} said. \"I was slow to learn it too.\"",
                "{friend} came over and said, \"{tip}. That is the whole secret.\"",
            ],
            &[
                "So {hero} tried again, day after day. Each day it went a little better.",
                "{hero} nodded and tried once more. This time it felt different.",
                "{hero} practiced for [three|five|seven] days and did not give up.",
            ],
            &[
                "At last {he} {success}!",
                "And then it happened: {hero} {success}. Everyone clapped.",
                "On the last day of the week {he} {success}. \"Look at me!\" {he} cried.",
            ],
            &[
                "{his} {elder} was very proud of {him}.",
                "Now {hero} shows the little ones how to {skill}.",
                "{hero} knew now that [nobody can do everything at once|trying again is the best teacher].",
                "After that, {skilling} was {his} favorite thing to do.",
            ],
        ],
        questions: &[
            ("What did {hero} want to learn?", "{hero} wanted to {skill}."),
            ("What was the advice?", "The advice was: {tip}."),
        ],
    },
    // A fear loses its power.
    Plot {
        draws: &[Draw::Fear],
        beats: &[
            &[
                "There was only one thing that {hero} was afraid of: {fear}.",
                "But {hero} had a secret. {he} was afraid of {fear}, because {why}.",
                "{hero} did not like {fear}, because {why}.",
            ],
            &[
                "One {weather} {daytime}, {friend} asked {him} to come along, but {hero} shook {his} head. \"I cannot,\" {he} said.",
                "When {friend} heard about it, {fhe} did not laugh. \"Everyone is afraid of something,\" {fhe} said.",
                "{hero} told nobody about it, not even {friend}.",
            ],
            &[
                "{his} {elder} took {him} by the hand. \"Let us look at it together,\" {ehe} said.",
                "\"Shall I go with you?\" asked {friend}. {hero} took a deep breath and said yes.",
                "Then {he} met {a:helper}. \"You must look at your fear with open eyes,\" the {helper} said.",
            ],
            &[
                "They went slowly, step by step. {hero} held on tight.",
                "{his} heart beat like a drum, but {he} did not run away.",
                "{he} counted to [three|ten] and opened {his} eyes.",
            ],
            &[
                "And then {he} saw that {truth}.",
                "Now {hero} understood: {truth}.",
                "\"Do you see?\" {he} heard. And yes, {truth}.",
            ],
            &[
                "From then on {he} {calm}.",
                "{hero} laughed out loud. That same week {he} {calm}.",
                "\"Is that all?\" asked {hero}. {he} was not afraid anymore, and soon {he} {calm}.",
            ],
        ],
        questions: &[
            ("What was {hero} afraid of?", "{hero} was afraid of {fear}."),
            ("Is {hero} still afraid?", "No, {hero} is not afraid anymore."),
        ],
    },
    // A gift made by hand.
    Plot {
        draws: &[Draw::Gift],
        beats: &[
            &[
                "Tomorrow was the birthday of {his} {elder}, but {hero} had no money for a present.",
                "{hero} wanted to give {his} {elder} something special. But {he} had only one coin.",
            ],
            &[
                "{he} walked past the shops and looked at all the shiny things. Everything cost too much.",
                "\"What can I do?\" {he} asked {friend}. \"You can make something,\" said {friend}.",
                "{he} sat on the steps and thought for a long time.",
            ],
            &[
                "Then {he} had an idea. {he} would make {gift} from {material}.",
                "All at once {he} jumped up. \"I will make {gift}!\" {he} said. \"All I need is {material}.\"",
            ],
            &[
                "{hero} and {friend} spent the whole {daytime} looking for {material}.",
                "It took a long time to find {material}, but {he} did not stop.",
            ],
            &[
                "{he} worked until the moon came up, and {his} fingers grew tired.",
                "The first one did not look right, so {he} made a second one.",
            ],
            &[
                "In the morning {hero} put the present on the table. {his} {elder} looked at it and was silent. \"[This is the best present of my life|You made this for me?|I will keep it forever],\" {ehe} said.",
                "When {his} {elder} saw the present, {ehe} had tears in {ehis} eyes. \"It is beautiful,\" {ehe} said.",
            ],
            &[
                "A present from the heart is worth more than gold.",
                "They ate cake together, and {friend} got the biggest piece.",
                "",
            ],
        ],
        questions: &[
            ("What did {hero} make?", "{hero} made {gift} from {material}."),
            ("Who got the present?", "{his} {elder} got the present."),
        ],
    },
];
