"""A user database out of any credentials checker of twisted.cred."""

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import maybeDeferred
from zope.interface import implementer

from mailsrv.interfaces import IUserDatabase


@implementer(IUserDatabase)
class CheckerUsers:
    """Asks a checker; account and password are UTF-8 there."""

    def __init__(self, checker: ICredentialsChecker) -> None:
        """Raises `ValueError` if the checker wants other than names and passwords."""
        if IUsernamePassword not in checker.credentialInterfaces:
            raise ValueError("the checker takes no names and passwords")
        self._checker = checker

    async def check_password(self, account: str, password: str) -> bool:
        credentials = UsernamePassword(
            account.encode(), password.encode("utf-8", "surrogatepass")
        )
        try:
            avatar_id = await maybeDeferred(self._checker.requestAvatarId, credentials)
        except UnauthorizedLogin:
            return False
        return bool(avatar_id)  # that of nobody is empty
