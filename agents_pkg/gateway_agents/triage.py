"""Three agents: a triage agent that hands each conversation off to billing or to support.

A client sees one model, `Triage`. The data of the tools is fictional.
"""

from agents import Agent, function_tool
from agents.extensions.handoff_prompt import RECOMMENDED_PROMPT_PREFIX

INVOICES = {
    "1001": "42.00 EUR, paid on 3 March",
    "1002": "99.50 EUR, open, due on 30 April",
    "1003": "15.00 EUR, refunded on 11 March",
}
SERVICES = {
    "api": "up",
    "dashboard": "slow since 09:40; the team is working on it",
    "email": "up",
}


@function_tool
def look_up_invoice(number: str) -> str:
    """Look up an invoice: its amount, and whether it is paid.

    Args:
        number: The invoice's number, such as 1002.
    """
    number = number.strip().removeprefix("#")
    invoice = INVOICES.get(number)
    return f"Invoice {number}: {invoice}." if invoice else f"There is no invoice {number}."


@function_tool
def check_service_status(service: str) -> str:
    """Check whether a service is up.

    Args:
        service: One of api, dashboard, email.
    """
    status = SERVICES.get(service.strip().casefold())
    return (
        f"{service.strip()} is {status}."
        if status
        else f"There is no service {service}; ask for {', '.join(SERVICES)}."
    )


billing = Agent(
    name="Billing",
    # The description helps the triage agent decide when to hand off to this agent.
    handoff_description="Answers questions about invoices, payments and refunds.",
    instructions=(
        f"{RECOMMENDED_PROMPT_PREFIX}\n"
        "You answer questions about invoices. Ask for the invoice's number if it is missing, look it up with "
        "look_up_invoice, and answer from the result. You cannot change an invoice."
    ),
    tools=[look_up_invoice],
)

support = Agent(
    name="Support",
    handoff_description="Helps when something does not work.",
    instructions=(
        f"{RECOMMENDED_PROMPT_PREFIX}\n"
        "You help when something does not work. Check the service with check_service_status before you suggest "
        "anything, then give at most three steps to try."
    ),
    tools=[check_service_status],
)

agent = Agent(
    name="Triage",
    handoff_description="First contact: passes you on to billing or support.",
    instructions=(
        f"{RECOMMENDED_PROMPT_PREFIX}\n"
        "You are the first contact. Hand off to Billing for invoices, payments and refunds, and to Support when "
        "something does not work. Answer greetings yourself; if you cannot tell, ask one short question."
    ),
    handoffs=[billing, support],
)
