from adapters.prompts import one_shot_messages, task_messages


def test_a_task_is_one_user_message_without_a_hidden_system_prompt():
    assert task_messages("Thank Ada.") == [{"role": "user", "content": "Thank Ada."}]


def test_earlier_turns_come_first_oldest_first():
    assert task_messages("Shorter.", [("Thank Ada.", "Dear Ada"), ("Warmer.", "Hi Ada")]) == [
        {"role": "user", "content": "Thank Ada."},
        {"role": "assistant", "content": "Dear Ada"},
        {"role": "user", "content": "Warmer."},
        {"role": "assistant", "content": "Hi Ada"},
        {"role": "user", "content": "Shorter."},
    ]


def test_an_example_stands_before_the_task_in_the_first_message():
    (message,) = one_shot_messages(("Greet Bo.", "Hi Bo!"), "Thank Ada.")
    assert message["role"] == "user"
    example, _, task = message["content"].partition("Now write the email for this task.")
    assert "Task: Greet Bo." in example
    assert "Hi Bo!" in example
    assert task.endswith("Task: Thank Ada.")


def test_an_example_leaves_the_later_turns_as_they_are():
    plain = task_messages("Shorter.", [("Thank Ada.", "Dear Ada")])
    shown = one_shot_messages(("Greet Bo.", "Hi Bo!"), "Shorter.", [("Thank Ada.", "Dear Ada")])
    assert shown[1:] == plain[1:]
    assert shown[0]["content"].endswith("Thank Ada.")
