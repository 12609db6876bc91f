from adapters.emails.prompts import instructed, reply_task, task_messages


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


def test_the_message_that_a_reply_answers_is_quoted_in_its_task():
    task = reply_task("Say yes.", "Ada", "Can you come?\n\nAda\n")
    assert task == "Say yes.\n\nReply to this email from Ada:\n> Can you come?\n>\n> Ada"


def test_an_instruction_is_the_system_message_of_a_prompt_without_one():
    user, own = {"role": "user", "content": "Thank Ada."}, {"role": "system", "content": "Be brief."}
    assert instructed([user], "Write.") == [{"role": "system", "content": "Write."}, user]
    assert instructed([own, user], "Write.") == [own, user]
    assert instructed([user], "") == [user]
