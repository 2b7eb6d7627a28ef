"""Django in one file: a view for each way to send, the blocking and the asynchronous one.

EMAIL_HOST=smtp.example.com EMAIL_PORT=587 python django_site.py runserver
"""

import os
import sys

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="only for this example",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        EMAIL_BACKEND="smtp_async.integrations.django.EmailBackend",
        EMAIL_HOST=os.environ.get("EMAIL_HOST", "localhost"),
        EMAIL_PORT=int(os.environ.get("EMAIL_PORT", "1025")),
    )
    django.setup()

from django.core.mail import send_mail
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path

from smtp_async.integrations.django import asend_mail

WELCOME = ("Welcome", "Nice to meet you.\n", "hello@example.com")


def register(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"sent": send_mail(*WELCOME, [request.GET["address"]])})


async def register_async(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"sent": await asend_mail(*WELCOME, [request.GET["address"]])})


urlpatterns = [path("register", register), path("register-async", register_async)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
