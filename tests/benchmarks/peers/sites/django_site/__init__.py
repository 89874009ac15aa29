"""A plain Django project: Django REST framework under /drf/, django-ninja under /ninja/."""
