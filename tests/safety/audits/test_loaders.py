"""The published formats, and what is said about files that are not in them."""

import pytest

from safety.audits import loading
from safety.audits.bold import load_bold
from safety.audits.cooccurrence_data import load_cooccurrence_prompts
from safety.audits.crows_pairs import load_pairs
from safety.audits.errors import AuditDataError
from safety.audits.scorer_data import load_labelled, load_terms
from safety.audits.toxicity_data import load_prompts
from safety.audits.winogender_data import load_sentences
from tests.shared_data import shared_file


def test_every_shipped_set_is_read():
    assert len(load_prompts(loading.shipped("toxicity_prompts.jsonl"))) >= 50
    assert len(load_sentences(loading.shipped("winogender/templates.tsv"))) == 120
    assert len(load_pairs(loading.shipped("crows_pairs.csv"))) >= 40
    assert {one.domain for one in load_bold(loading.shipped("bold"))} == {
        "gender",
        "profession",
        "race",
        "religion",
    }
    assert load_cooccurrence_prompts(loading.shipped("cooccurrence.toml"))
    assert load_labelled(loading.shipped("scorer_texts.csv"))
    assert load_terms(loading.shipped("identity_terms.toml"))


def test_published_winogender_is_read_and_its_subsets_are_balanced():
    found = load_sentences(shared_file("data/winogender"))
    assert len(found) == 720
    sizes = {name: sum(one.subset == name for one in found) for name in ("gotcha", "neutral")}
    assert sizes == {"gotcha": 240, "neutral": 240}
    (nurse,) = [one for one in found if one.id == "nurse.patient.1.male"]
    assert nurse.candidates == ("the nurse", "the patient")
    assert nurse.subset == "stereotypical"  # a nurse is a woman by statistics, so he is the patient


def test_published_templates_give_the_published_sentences():
    sentences = load_sentences(shared_file("data/winogender/all_sentences.tsv"))
    made = load_sentences(shared_file("data/winogender/templates.tsv"))
    texts = {one.id: one.text for one in sentences}
    different = [one.id for one in made if texts[one.id] != one.text]
    # The published neutral sentences bend verbs ("they were"), templates do not.
    assert [one for one in different if not one.endswith("neutral")] == []


def test_published_pairs_prompts_and_labels_are_read():
    pairs = load_pairs(shared_file("data/crows_pairs/crows_pairs_anonymized.csv"))
    assert (len(pairs), len({one.bias_type for one in pairs})) == (1508, 9)
    bold = load_bold(shared_file("data/bold"))
    assert len({one.domain for one in bold}) == 5
    assert len(load_labelled(shared_file("data/edos/edos_labelled_aggregated.csv"))) == 20000
    assert len(load_labelled(shared_file("data/cat/gn.csv"))) == 10000
    templates = shared_file("data/identity_templates/en_sentence_templates_half.csv")
    assert len(load_labelled(templates)) == 38282


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("load", "name", "text", "problem"),
    [
        (load_pairs, "a.csv", "sent_more,bias_type\n", "line 1: column 'sent_less' is missing"),
        (
            load_pairs,
            "a.csv",
            "sent_more,sent_less,stereo_antistereo,bias_type\na,b,c,d\n",
            "line 2: field 'stereo_antistereo' is 'c'",
        ),
        (
            load_pairs,
            "a.csv",
            "sent_more,sent_less,stereo_antistereo,bias_type\na,b\n",
            "line 2: has 2 fields; the heading has 4",
        ),
        (load_bold, "x_prompt.json", '{"a": {"b": "c"}}', "field a.b is str; expected a list"),
        (load_bold, "x_prompt.json", '{"a":\n!', "line 2: no JSON"),
        (load_labelled, "a.csv", "text,score\na,1\n", "no column for the label"),
        (load_labelled, "a.csv", "text,label\na,7\n", "line 2: field 'label' is '7'"),
        (load_labelled, "a.csv", "text,label\na,1\n", "holds no innocent text"),
        (load_terms, "a.toml", "terms = 3", "has no table [terms]"),
        (load_cooccurrence_prompts, "a.toml", "x = 1", "has no [[dimensions]]"),
        (
            load_cooccurrence_prompts,
            "a.toml",
            '[[dimensions]]\nname="a"\ntemplates=["b"]\n',
            "dimensions[0].templates has 'b' without {term}",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, load, name, text, problem):
    with pytest.raises(AuditDataError) as error:
        load(written(tmp_path, name, text))
    assert name in str(error.value)
    assert problem in str(error.value)


def test_winogender_names_line_and_field(tmp_path):
    written(tmp_path, "occupations-stats.tsv", "occupation\tbls_pct_female\nnurse\t90\n")
    path = written(tmp_path, "all_sentences.tsv", "sentid\tsentence\nnurse.x.0.it.txt\tIt was.\n")
    with pytest.raises(AuditDataError, match=r"line 2: field 'sentid' is 'nurse.x.0.it'"):
        load_sentences(path)
    path = written(tmp_path, "all_sentences.tsv", "sentid\tsentence\nnurse.x.0.male.txt\tShe.\n")
    with pytest.raises(AuditDataError, match="line 2: field 'sentence' has no male pronoun"):
        load_sentences(path)


def test_a_sample_is_the_same_for_the_same_seed():
    items = list(range(100))
    assert loading.sample(items, 10, 3) == loading.sample(items, 10, 3)
    assert loading.sample(items, 10, 3) != loading.sample(items, 10, 4)
    assert loading.sample(items, None, 3) == items
