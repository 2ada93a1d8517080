;; granted: http
(component (import "clawcoil:skill/tokens@0.1.0" (instance)))
