(component
    (core module $m (func (export "f"))) (core instance $i (instantiate $m))
    (func $f (canon lift (core func $i "f")))
    (instance $one (export "send" (func $f)))
    (instance $two (export "send" (func $f)))
    (export "acme:mail/tools@0.1.0" (instance $one))
    (export "acme:post/tools@0.1.0" (instance $two)))
