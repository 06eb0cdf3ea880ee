"""Make ``twistd mailsrv`` known to Twisted."""

from twisted.application.service import ServiceMaker

mailsrv = ServiceMaker("mailsrv", "mailsrv.service", "A full mail server", "mailsrv")
